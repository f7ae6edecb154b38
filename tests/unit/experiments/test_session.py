"""The MLflow parent of trials: nothing of it is left RUNNING."""

import mlflow

from pipelines.config import Config
from pipelines.experiments.session import close_parent, open_parent


def test_children_that_nobody_ended_are_killed(tmp_path):
    folder = tmp_path / "sweep"
    parent = open_parent(folder, Config.model_validate({"name": "t"}), "sweep", {})
    assert open_parent(folder, Config.model_validate({"name": "t"}), "sweep", {}).run_id == parent.run_id
    client = mlflow.MlflowClient(parent.uri)
    experiment = client.get_run(parent.run_id).info.experiment_id
    tags = {"mlflow.parentRunId": parent.run_id}
    left, done = (client.create_run(experiment, tags=tags).info.run_id for _ in range(2))
    other = client.create_run(experiment).info.run_id
    client.set_terminated(done, "FINISHED")
    close_parent(parent, "FINISHED", {}, [])
    states = [client.get_run(run).info.status for run in (left, done, other, parent.run_id)]
    assert states == ["KILLED", "FINISHED", "RUNNING", "FINISHED"]
