"""MLflow: the tracker of a run, names of metrics, look-up, registry; and gauges for Prometheus."""
