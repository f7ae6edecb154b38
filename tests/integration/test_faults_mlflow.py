"""MLflow's server goes away while a run trains: training neither waits nor dies, and the axis ends whole.

``UNIGEOSEG_OUTAGE_SECONDS`` sets how long it stays away where it comes back.
"""

import json
import os
import time

import pytest

from pipelines.runs.listing import list_runs
from tests.fault_runs import assert_same_run, assert_tracked_once, rows, wait_for
from tests.mlflow_server import MlflowServer
from tests.train_runs import finish, start

pytestmark = [pytest.mark.integration, pytest.mark.slow]
OUTAGE = float(os.environ.get("UNIGEOSEG_OUTAGE_SECONDS", "60"))
ALONE = {"train.micro_batch": 2}


@pytest.fixture
def server(tmp_path):
    with MlflowServer(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_store):
    """One plain process of many steps, tracked in a file."""
    run = tmp_path_factory.mktemp("alone") / "run"
    finish(start("plain", run, tiny_store, **ALONE, **{"train.steps": 60}))
    return run


def _metrics(run):
    path = run / "metrics.jsonl"
    return rows(path) if path.exists() else []


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_stopped_for_a_while(server, tmp_path, tiny_store, how):
    """The run is long enough to outlast it; its steps go on meanwhile."""
    server.start()
    run = tmp_path / "run"
    options = {**ALONE, "tracking.uri": server.url, "train.steps": 4000, "checkpoint.every": 500}
    process = start("plain", run, tiny_store, **options)
    try:
        wait_for("first steps", lambda: len(_metrics(run)) > 10, process)
        before = len(_metrics(run))
        server.kill() if how == "killed" else server.freeze(True)
        time.sleep(OUTAGE)
        assert process.poll() is None
        during = len(_metrics(run)) - before
        assert during > 10, "training waited for MLflow"
        server.start() if how == "killed" else server.freeze(False)
        process.terminate()  # a checkpoint, what MLflow lacks, and the end
        output = finish(process, code=143)
    finally:
        process.kill()
    if how == "killed" or OUTAGE > 30:  # a request to a frozen server waits, and is sent again
        assert "MLflow does not answer" in output
    assert "could not be sent" not in output
    (row,) = list_runs(str(tmp_path))
    assert (row.state, row.mlflow_closed) == ("killed", True)
    assert row.checkpoint_step == row.step == len(_metrics(run))
    assert_tracked_once(server.database, "KILLED", row.step)


def test_away_from_the_start_to_the_end(alone, server, tmp_path, tiny_store):
    run = tmp_path / "run"
    options = {**ALONE, "tracking.uri": server.url, "train.steps": 60}
    output = finish(start("plain", run, tiny_store, **options))
    assert "out of reach" in output and "60 logged steps could not be sent" in output
    assert_same_run(run, alone)
    assert [row["step"] for row in rows(run / "mlflow_unsent.jsonl")] == list(range(60))
    assert json.loads((run / "mlflow.json").read_text())["closed"] is False
    server.start()
    (row,) = list_runs(str(tmp_path))
    assert row.state == "finished"
    assert_tracked_once(server.database, "FINISHED", 60)
    assert not (run / "mlflow_unsent.jsonl").exists()
    assert json.loads((run / "mlflow.json").read_text())["closed"] is True


def test_gone_for_good_on_the_way(alone, server, tmp_path, tiny_store):
    server.start()
    run = tmp_path / "run"
    process = start("plain", run, tiny_store, **ALONE, **{"tracking.uri": server.url, "train.steps": 60})
    try:
        wait_for("first steps", lambda: len(_metrics(run)) > 5, process)
        server.kill()
        output = finish(process)
    finally:
        process.kill()
    assert "could not be sent to MLflow" in output
    assert_same_run(run, alone)
    assert rows(run / "mlflow_unsent.jsonl")[-1]["step"] == 59
    server.start()
    list_runs(str(tmp_path))
    assert_tracked_once(server.database, "FINISHED", 60)
