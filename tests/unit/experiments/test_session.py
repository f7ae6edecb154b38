"""What trials share: an MLflow parent of which nothing is left RUNNING, and how many run at once."""

import mlflow
import pytest
import ray
from ray.tune.execution.class_cache import _ActorClassCache

from pipelines.config import Config
from pipelines.experiments.session import close_parent, open_parent, trainable, trials_at_once
from pipelines.experiments.trial import TrainTrial, TrialPlan
from unigeoseg.errors import UserError


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


def test_no_key_stands_in_a_trials_runtime_environment(monkeypatch, tmp_path):
    """Which the dashboard shows, and each node's agent writes to its log."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
    for name in (*names, "RAY_TRAIN_COLLECTIVE_TIMEOUT_S"):
        monkeypatch.setenv(name, "7")
    trainable(TrialPlan(Config.model_validate({"name": "t"}), "store", str(tmp_path)))
    given = _ActorClassCache().get(TrainTrial)._default_options["runtime_env"]["env_vars"]
    assert "RAY_TRAIN_COLLECTIVE_TIMEOUT_S" in given and not {*names} & {*given}


@pytest.mark.parametrize(
    ("there", "trials", "grows_to", "expected"),
    [
        ({"CPU": 4}, 8, None, 2),  # present nodes alone
        ({}, 8, 10, 5),  # nothing yet, the autoscaler could bring ten CPUs
        ({"CPU": 4}, 3, 100, 3),  # never more than there are
        ({}, 8, 0, 1),  # one then says itself what is missing
    ],
)
def test_as_many_trials_as_the_cluster_holds_or_can_grow_to(monkeypatch, there, trials, grows_to, expected):
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    config = Config.model_validate({"name": "t", "scale": {"workers": 2}, "train": {"global_batch": 2}})

    def could(bundles):
        assert all(bundle == {"CPU": 1.0} for bundle in bundles)
        return None if grows_to is None else len(bundles) <= grows_to

    assert trials_at_once(config, None, trials, could) == expected
    assert trials_at_once(config, 7, trials, could) == 7
    with pytest.raises(UserError, match="--concurrent 0"):
        trials_at_once(config, 0, trials, could)
