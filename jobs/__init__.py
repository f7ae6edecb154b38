"""What a user runs or submits: one module a job, its presets, the ``unigeoseg`` command."""
