"""Losses of the masks, and what training watches of them."""
