"""The one error of this package that a user can put right."""

import click


class InputError(click.ClickException):
    """What the user can put right: one message, exit code 2."""

    exit_code = 2
