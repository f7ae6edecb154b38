"""What tests of faults share: a run worth disturbing, waiting for moments in it, and comparisons."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from safetensors.torch import load_file

#: Long enough to be disturbed after a checkpoint. Dropout shows whether a replayed step is the same step.
LONG: dict[str, Any] = {
    "scale.workers": 2,
    "train.steps": 40,
    "checkpoint.every": 5,
    "model.tate.dropout": 0.1,
}
_PATIENCE = 280.0


def rows(path: Path) -> list[dict[str, Any]]:
    """Of a file with one JSON object a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(run: Path) -> dict[str, Any]:
    """Of a run's export."""
    return load_file(str(run / "export/model.safetensors"))


def assert_same_run(run: Path, other: Path) -> None:
    """The same samples in every step, and bit by bit the same losses and weights."""
    assert rows(run / "ledger.jsonl") == rows(other / "ledger.jsonl")
    losses = [[row["loss"] for row in rows(r / "metrics.jsonl")] for r in (run, other)]
    assert losses[0] == losses[1]
    first, second = weights(run), weights(other)
    assert first.keys() == second.keys() and all((first[k] == second[k]).all() for k in first)


def assert_tracked_once(uri: str, status: str, steps: int) -> None:
    """One MLflow run with this status, whose step axis has no gap and no double."""
    client = mlflow.MlflowClient(uri)
    (found,) = client.search_runs([client.get_experiment_by_name("train").experiment_id])
    assert found.info.status == status
    history = [m.step for m in client.get_metric_history(found.info.run_id, "train/loss")]
    assert history == list(range(steps))


def own_database(run: Path) -> str:
    """Where a run in a folder tracks by default."""
    return f"sqlite:///{run.parent}/mlflow.db"


def wait_for(what: str, look: Callable[[], Any], process: Any = None, seconds: float = _PATIENCE) -> Any:
    """What ``look`` returns as soon as it is something; fails when the process ends before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        if process is not None and process.poll() is not None:
            pytest.fail(f"the run ended before {what}:\n{process.communicate()[0][-3000:]}")
        time.sleep(0.05)
    pytest.fail(f"no {what} within {seconds:.0f} s")


def committed(run: Path, step: int = 1) -> list[int]:
    """Steps of the run's committed checkpoints, from ``step`` on."""
    found = [int(mark.parent.name[5:]) for mark in (run / "checkpoints").glob("*/COMMITTED")]
    return sorted(s for s in found if s >= step)


@contextmanager
def slow_motion(process: psutil.Process) -> Iterator[None]:
    """Lets a process run a tenth of the time, as long as it lives; it still answers whoever asks."""
    ended = threading.Event()

    def brake() -> None:
        with suppress(psutil.NoSuchProcess):
            while not ended.is_set():
                process.suspend()
                ended.wait(0.45)
                process.resume()
                ended.wait(0.05)

    thread = threading.Thread(target=brake, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def training_workers(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of ``processes`` that are Ray Train's workers."""
    found = []
    for process in processes:
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def workers_after_checkpoint(process: Any, run: Path, step: int = 1) -> list[psutil.Process]:
    """A driver's training workers, as soon as there is a checkpoint of ``step`` or later."""

    def look() -> list[psutil.Process]:
        # The workers first: looking for them takes longer than the steps up to a checkpoint.
        found = training_workers(psutil.Process(process.pid).children(recursive=True))
        while found and not committed(run, step) and process.poll() is None:
            time.sleep(0.02)
        return [worker for worker in found if worker.is_running()]

    found: list[psutil.Process] = wait_for(f"a worker after a checkpoint of step {step}", look, process)
    return found
