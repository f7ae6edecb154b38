"""Evaluation, its pictures and report, and prediction on single images."""
