"""How an MLflow server is set up for training alone."""

#: Without the workers for evaluation and tracing jobs, which nothing here asks for: seven more processes.
MLFLOW_SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
