"""Checkpoints: written beside training, made to count, found again, turned into exports."""
