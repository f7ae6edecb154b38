"""Progressive task scheduling: shares over time, adaptive ones, and their record."""
