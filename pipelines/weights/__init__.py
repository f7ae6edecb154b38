"""Weights by reference: the Hub, the table of known ones, and one copy a machine."""
