"""Where it runs: local services and clusters."""
