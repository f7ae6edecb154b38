"""The training loop of one rank, and all that goes on beside its steps."""
