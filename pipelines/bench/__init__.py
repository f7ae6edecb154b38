"""Measurements: what a training step costs, part by part."""
