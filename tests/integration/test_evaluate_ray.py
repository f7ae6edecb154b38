"""Evaluation on Ray actors: the same bytes with one worker, two, and none; a lost actor changes nothing."""

import json
import threading
import time
from pathlib import Path

import psutil
import pytest
import ray

from pipelines.evaluate.evaluate import Placement, evaluate_store, write_evaluation
from pipelines.evaluate.models import ModelSource
from pipelines.evaluate.worker import EvalJob
from tests.tiny_export import write_export
from tests.tiny_store import write_store
from unigeoseg.errors import UserError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def _some_bad(i, encoded, record):
    """Bad samples in two portions: a whole image, and one sample of another."""
    if i == 11:
        record["samples"][0]["instruction"] = ""
    return encoded[:100] if i == 1 else None


@pytest.fixture
def job(tmp_path):
    store = write_store(tmp_path / "store", images=14, split="val", damage=_some_bad)
    export = write_export(tmp_path / "export")
    source = ModelSource(str(export))
    return EvalJob(str(store), "val", source, ModelSource(str(export), 1), True, True)


class _Killer(threading.Thread):
    """Kills the first of this process's Ray workers that is seen evaluating a portion."""

    killed = None

    def run(self):
        deadline = time.monotonic() + 120
        while self.killed is None and time.monotonic() < deadline:
            for process in psutil.Process().children(recursive=True):
                try:
                    if "_Actor.evaluate" in " ".join(process.cmdline()):
                        process.kill()
                        self.killed = process.pid
                        return
                except psutil.Error:
                    continue
            time.sleep(0.02)


def _bytes(job, placement, folder):
    write_evaluation(evaluate_store(job, placement=placement, images=3), str(folder), save_predictions=True)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_any_number_of_workers_gives_the_same_bytes(cluster, job, tmp_path):
    here = _bytes(job, Placement(workers=0), tmp_path / "0")
    assert set(here) == {"evaluation.json", "evaluation.md", "per_sample.parquet"}
    unusable = json.loads(here["evaluation.json"])["unusable"]
    assert {one["reason"] for one in unusable} == {"unreadable_image", "text"} and len(unusable) == 7
    assert _bytes(job, Placement(workers=1), tmp_path / "1") == here
    assert _bytes(job, Placement(workers=4), tmp_path / "4") == here
    killer = _Killer(daemon=True)
    killer.start()
    assert _bytes(job, Placement(workers=2), tmp_path / "2") == here
    assert killer.killed is not None


def test_a_damaged_export_is_a_user_error(cluster, job):
    with Path(job.model.export, "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match="does not fit"):
        evaluate_store(job, placement=Placement(workers=1))
