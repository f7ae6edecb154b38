"""Weights from elsewhere: Mask2Former checkpoints and our own exports, read safely and reported in full."""
