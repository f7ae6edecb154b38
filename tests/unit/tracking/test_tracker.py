"""MLflow: nothing waits for it, nothing is lost, no step twice."""

import json
import socket
import threading
import time

import mlflow
import pytest

import pipelines.tracking.tracker
from pipelines.tracking.metric_names import flat_metrics
from pipelines.tracking.tracker import Tracker, TrackingRun, end_run, flatten, open_run, try_open_run
from pipelines.train.engine.step import StepResult, StepSeconds
from pipelines.train.loop.metrics import RankReport, Window, metrics_row
from pipelines.train.loop.progress import describe


def _row(step):
    result = StepResult(
        step=step,
        loss=2.0 - step / 100,
        parts={"mask_bce": 0.5, "mask_dice": 1.0},
        task_sums={"interactive": 6.0, "referring": 2.0, "reasoning": 0.0},
        task_counts={"interactive": 3, "referring": 1, "reasoning": 0},
        watched={"soft_dice": {"interactive": 1.5, "referring": 0.25, "reasoning": 0.0}},
        lr=1e-3,
        grad_norm=0.7,
        grad_norms={},
        images=2,
        tokens=80,
        seconds=StepSeconds(0.1, 0.2, 0.3, 0.4),
    )
    window, report = Window(), RankReport(memory={"host": 10.0})
    window.add(result, wall=2.0, warm=True)
    report.add(result.seconds)
    facts = {
        "position": 4 * step,
        "epoch": 0.1,
        "progress": 0.2,
        "samples_seen": 4 * step + 4,
        "quarantined": 0,
    }
    shares = {"interactive": 0.5, "referring": 0.3, "reasoning": 0.2}
    return metrics_row(result, window, [report, report], {**facts, "target_shares": shares})


def test_row_holds_means_shares_and_rates():
    row = _row(0)
    assert row["task_losses"] == {"interactive": 2.0, "referring": 2.0, "reasoning": None}
    assert row["shares"] == {"interactive": 0.75, "referring": 0.25, "reasoning": 0.0}
    assert row["rates"]["samples_per_s"] == 2.0 and row["rates"]["tokens_per_s"] == 40.0
    assert row["waits"]["step"] == pytest.approx(1.0)
    flat = flat_metrics(row)
    assert flat["train/loss"] == 2.0 and flat["train/loss/mask_bce"] == 0.5
    assert flat["train/loss/interactive"] == 2.0 and "train/loss/reasoning" not in flat
    assert flat["pts/share/reasoning"] == 0.2 and flat["perf/samples_per_s"] == 2.0
    assert "2.0 samples/s" in describe(row) and "wait 10%" in describe(row)
    json.dumps(row, allow_nan=False)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def _run(uri):
    params = {f"p{i}": str(i) for i in range(230)} | {"long": "x" * 9000}
    return TrackingRun(uri, "train", "name", params, {"plan.fingerprint": "f"})


def test_rows_arrive_once_across_a_restart(database, tmp_path):
    run = open_run(_run(database))
    first = Tracker(run, tmp_path / "unsent.jsonl")
    for step in range(5):
        first.log(_row(step))
    assert first.close(timeout=60) == 0
    # The restarted worker has metrics.jsonl up to step 6 and replays from 4: 5 and 6 never got there.
    again = Tracker(open_run(run), tmp_path / "unsent.jsonl", [_row(step) for step in range(7)])
    for step in range(4, 9):
        again.log(_row(step))
    assert again.close(timeout=60) == 0
    end_run(run, "FINISHED", {"val/interactive/gIoU": 0.5})
    client = mlflow.MlflowClient(database)
    history = client.get_metric_history(run.run_id, "train/loss")
    assert [m.step for m in history] == list(range(9))
    assert [m.value for m in history] == [2.0 - step / 100 for step in range(9)]
    data = client.get_run(run.run_id)
    assert data.info.status == "FINISHED" and data.data.params["p229"] == "229"
    assert data.data.tags["plan.fingerprint"] == "f" and data.data.metrics["val/interactive/gIoU"] == 0.5


def test_dead_server_neither_blocks_nor_loses(tmp_path, caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        run = try_open_run(_run(uri))
        assert run.run_id is None and "out of reach" in caplog.text
        tracker = Tracker(run, tmp_path / "unsent.jsonl")
        started = time.monotonic()
        for step in range(50):
            tracker.log(_row(step))
        assert time.monotonic() - started < 5
        assert tracker.close(timeout=1) == 50
        end_run(run, "FINISHED")
    rows = [json.loads(line) for line in (tmp_path / "unsent.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == list(range(50))
    assert "could not be sent" in caplog.text


def test_server_that_comes_back_gets_everything(database, tmp_path, monkeypatch):
    from pipelines.tracking import tracker as tracking

    run, real, calls = open_run(_run(database)), tracking.tracking_client, []

    def flaky(uri):
        calls.append(uri)
        if len(calls) < 3:
            raise ConnectionError("down")
        return real(uri)

    monkeypatch.setattr(tracking, "tracking_client", flaky)
    tracker = Tracker(run, tmp_path / "unsent.jsonl")
    tracker.log(_row(0))
    deadline = time.monotonic() + 30
    while len(calls) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert tracker.close(timeout=30) == 0
    assert not (tmp_path / "unsent.jsonl").exists()
    assert [m.step for m in real(database).get_metric_history(run.run_id, "train/loss")] == [0]


def test_a_request_that_fails_while_the_run_ends_is_not_the_last(database, tmp_path, monkeypatch, caplog):
    """MLflow is back, but what was sent before it was has run out of time."""
    run, reached = open_run(_run(database)), pipelines.tracking.tracker.tracking_client
    sent, fails = threading.Event(), threading.Event()

    def client(uri):
        if not sent.is_set():
            sent.set()
            assert fails.wait(30)
            raise ConnectionError("timed out")
        return reached(uri)

    monkeypatch.setattr(pipelines.tracking.tracker, "tracking_client", client)
    tracker = Tracker(run, tmp_path / "unsent.jsonl")
    tracker.log(_row(0))
    assert sent.wait(30)
    threading.Timer(0.5, fails.set).start()
    assert tracker.close(timeout=60) == 0
    assert "does not answer (timed out)" in caplog.text
    assert not (tmp_path / "unsent.jsonl").exists()


def test_flatten():
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": None, "e": {}, "f": "x"}) == {
        "a.b": "1",
        "a.c": "[1, 2]",
        "d": "null",
        "e": "{}",
        "f": "x",
    }
