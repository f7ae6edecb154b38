"""A run as a folder: its files, ledger, manifest, status, what a worker is told, and the list of runs."""
