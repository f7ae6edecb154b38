"""Measurements: speed and memory of the parts, each with what it is compared with."""
