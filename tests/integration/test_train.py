"""Training runs in real processes: equal whatever the split, the launcher, and the faults on the way."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import mlflow
import psutil
import pytest
from safetensors.torch import load_file, save_file

from pipelines.model_export import convert_model
from tests.tiny_store import write_store
from tests.train_runs import finish, start
from unigeoseg.tokens import load_tokenizer

pytestmark = pytest.mark.integration


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _weights(run: Path) -> dict:
    return load_file(str(run / "export/model.safetensors"))


def _same_weights(a: Path, b: Path) -> bool:
    first, second = _weights(a), _weights(b)
    return first.keys() == second.keys() and all((first[k] == second[k]).all() for k in first)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, store):
    """One plain process, two micro-batches a step."""
    run = tmp_path_factory.mktemp("alone") / "run"
    finish(start("plain", run, store, **{"train.micro_batch": 2}))
    return run


@pytest.fixture(scope="module")
def pair(tmp_path_factory, store):
    """Two processes under torchrun, undisturbed, long enough to compare with a disturbed run."""
    run = tmp_path_factory.mktemp("pair") / "run"
    finish(start("plain", run, store, processes=2, **LONG))
    return run


LONG = {"scale.workers": 2, "train.steps": 40, "checkpoint.every": 5, "model.tate.dropout": 0.1}


def test_run_folder_is_complete(alone):
    ledger, metrics = _rows(alone / "ledger.jsonl"), _rows(alone / "metrics.jsonl")
    assert [r["step"] for r in ledger] == [r["step"] for r in metrics] == list(range(8))
    assert [r["position"] for r in ledger] == list(range(0, 32, 4))
    assert all(len(r["sample_ids"]) == 4 for r in ledger)
    newest = alone / "checkpoints/step-00000008"
    state = json.loads((newest / "state.json").read_text())
    assert (state["step"], state["position"], state["world_size"]) == (8, 32, 1)
    assert (newest / "COMMITTED").exists() and (alone / "checkpoints/step-00000004/COMMITTED").exists()
    assert set(json.loads((newest / "manifest.json").read_text())["files"]) >= {"state.json"}


def test_two_workers_see_the_same_batches_with_the_same_losses(alone, tmp_path, store):
    run = tmp_path / "run"
    finish(start("plain", run, store, processes=2, **{"scale.workers": 2}))
    assert _rows(run / "ledger.jsonl") == _rows(alone / "ledger.jsonl")
    for two, one in zip(_rows(run / "metrics.jsonl"), _rows(alone / "metrics.jsonl"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


def test_evaluation_on_the_way_disturbs_nothing(alone, tmp_path, store):
    run = tmp_path / "run"
    settings = {"evaluation.split": "train", "evaluation.every": 3, "evaluation.every_samples": 5}
    finish(start("plain", run, store, **{"train.micro_batch": 2, "model.tate.dropout": 0.0, **settings}))
    assert _rows(run / "ledger.jsonl") == _rows(alone / "ledger.jsonl")
    rows = _rows(run / "metrics.jsonl")
    assert [r["loss"] for r in rows] == [r["loss"] for r in _rows(alone / "metrics.jsonl")]
    assert _same_weights(run, alone)
    assert [r["step"] for r in rows if "val" in r] == [2, 5]
    assert all(v["n"] == 5 and 0 <= v["gIoU"] <= 1 for r in (rows[2], rows[5]) for v in r["val"].values())
    assert set(rows[2]["val"]) == {"interactive", "referring", "reasoning"}


def test_resume_from_before_a_damaged_checkpoint_replays_exactly(alone, tmp_path, store):
    run = tmp_path / "run"
    shutil.copytree(alone, run)
    shard = next((run / "checkpoints/step-00000008").glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    output = finish(start("plain", run, store, **{"train.micro_batch": 2, "resume": True}))
    assert "damaged" in output and "resuming from step 4" in output
    assert _rows(run / "ledger.jsonl") == _rows(alone / "ledger.jsonl")
    assert _same_weights(run, alone)


def test_a_checkpoint_alone_gives_the_run_s_export(alone, tmp_path):
    answer = convert_model(alone / "checkpoints/step-00000008", "unigeoseg", tmp_path / "out")
    exported, own = load_file(str(tmp_path / "out/model.safetensors")), _weights(alone)
    assert answer["tensors"] == len(exported) and exported.keys() == own.keys()
    assert all((exported[k] == own[k]).all() for k in own)


def test_resume_with_another_configuration_is_refused(alone, store):
    output = finish(start("plain", alone, store, **{"train.lr": 0.5, "resume": True}), code=2)
    assert "train.lr: 0.001 -> 0.5" in output and "train.micro_batch" in output


BAD = 2


@pytest.fixture(scope="module")
def bad(alone, tmp_path_factory):
    """The store with one sample, in step ``BAD``, whose text the model of these options cannot bear."""
    name = _rows(alone / "ledger.jsonl")[BAD]["sample_ids"][-1]

    def damage(number, encoded, record):
        for sample in record["samples"]:
            if sample["sample_id"] == name:
                sample["instruction"] += " Ω"

    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(alone / "export", folder / "export")
    weights, tokenizer = _weights(alone), load_tokenizer(alone / "tokenizer")
    table = weights["language.model.model.embed_tokens.weight"]
    table[sorted(set(tokenizer.encode(" Ω")) - set(tokenizer.encode(" ")))] = 3e38
    save_file(weights, str(folder / "export/model.safetensors"))
    options = {"init.model": str(folder / "export"), "tokenizer.path": str(alone / "tokenizer")}
    return write_store(folder / "store", damage=damage), name, options


def test_a_bad_sample_stops_the_run_and_is_named(bad, tmp_path):
    store, name, options = bad
    run = tmp_path / "run"
    output = finish(start("plain", run, store, **options), code=1)
    assert f"the loss of step {BAD} is not finite" in output and "recovery.max_skipped_steps" in output
    assert name in _diagnostic(run)["ranks"][0][0]["sample_ids"]


def test_a_bad_sample_s_step_may_be_left_out(bad, tmp_path):
    store, name, options = bad
    run = tmp_path / "run"
    options = {**options, "scale.workers": 2, "recovery.max_skipped_steps": 1}
    output = finish(start("plain", run, store, processes=2, **options))
    assert f"the loss of step {BAD} is not finite: the step is left out, 1 of at most 1" in output
    content = _diagnostic(run)
    assert content["step"] == BAD and [name in batch["sample_ids"] for (batch,) in content["ranks"]] == [0, 1]
    metrics, ledger = _rows(run / "metrics.jsonl"), _rows(run / "ledger.jsonl")
    assert [r["step"] for r in metrics] == [r["step"] for r in ledger] == list(range(8))
    assert [r["loss"] is None for r in metrics] == [step == BAD for step in range(8)]
    assert [r["skipped_steps"] for r in metrics] == [int(step >= BAD) for step in range(8)]
    state = json.loads((run / "checkpoints/step-00000008/state.json").read_text())
    assert state["skipped_steps"] == 1
    assert all(v.isfinite().all() for k, v in _weights(run).items())
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (tracked,) = client.search_runs(["1"])
    assert tracked.info.status == "FINISHED" and tracked.data.metrics["train/skipped_steps"] == 1
    losses = [m.step for m in client.get_metric_history(tracked.info.run_id, "train/loss")]
    assert losses == [step for step in range(8) if step != BAD]


def _diagnostic(run: Path) -> dict:
    (file,) = (run / "diagnostics").glob("*.json")
    return json.loads(file.read_text())


def test_a_killed_worker_costs_nothing(pair, tmp_path, store):
    run = tmp_path / "run"
    process = start("ray", run, store, **LONG)
    try:
        _kill_a_worker(process.pid, run)
        output = finish(process)
    finally:
        process.kill()
    assert "resuming from step" in output
    assert _rows(run / "ledger.jsonl") == _rows(pair / "ledger.jsonl")
    assert [r["loss"] for r in _rows(run / "metrics.jsonl")] == [
        r["loss"] for r in _rows(pair / "metrics.jsonl")
    ]
    assert _same_weights(run, pair)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["samples_seen"] == 160 and summary["checkpoint"] == "checkpoints/step-00000040"
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    tracked = client.get_run(summary["mlflow_run_id"])
    assert tracked.info.status == "FINISHED"
    history = client.get_metric_history(summary["mlflow_run_id"], "train/loss")
    assert [m.step for m in history] == list(range(40))


def _kill_a_worker(driver: int, run: Path) -> None:
    """Sends SIGKILL to one of the driver's training workers after its first checkpoint."""
    deadline = time.monotonic() + 280
    while time.monotonic() < deadline:
        if list((run / "checkpoints").glob("*/COMMITTED")):
            workers = [
                child
                for child in psutil.Process(driver).children(recursive=True)
                if "RayTrainWorker" in " ".join(child.cmdline())
            ]
            if workers:
                os.kill(workers[-1].pid, signal.SIGKILL)
                return
        time.sleep(0.05)
    pytest.fail("no worker to kill within the time")
