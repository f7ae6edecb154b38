"""The driver of a training: checks, workers and their restarts, the end; with Ray or plainly."""
