"""A finished map against what is known to be there."""
