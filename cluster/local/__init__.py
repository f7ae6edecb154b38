"""A whole cluster on one machine: Ray head and workers, MLflow, a development S3 server."""
