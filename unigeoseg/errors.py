"""The one exception for what a user can put right."""


class UserError(ValueError):
    """Wrong input or usage: says what, where, and the way out.

    The command line prints the message without a traceback and exits with 2.
    """
