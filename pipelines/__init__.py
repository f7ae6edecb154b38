"""The dataflows: building a dataset, planning and streaming samples, training, evaluating."""
