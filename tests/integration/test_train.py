"""Training runs in real processes: equal whatever the split, the launcher, and the faults on the way."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest
from safetensors.torch import load_file, save_file

from pipelines.config import Config
from pipelines.plan.plan import Plan
from pipelines.store.index import StoreIndex
from pipelines.train.checkpoints.model_export import convert_model
from tests.fault_runs import assert_same_run, rows, weights
from tests.tiny_store import write_store
from tests.train_runs import finish, start, tiny_values
from unigeoseg.samples.tokens import load_tokenizer

pytestmark = pytest.mark.integration
STEPS = 24
SHAPE = {"train.steps": STEPS, "checkpoint.every": 4}
ALONE = {**SHAPE, "train.micro_batch": 2}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_store):
    """One plain process, two micro-batches a step."""
    run = tmp_path_factory.mktemp("alone") / "run"
    finish(start("plain", run, tiny_store, **ALONE))
    return run


@pytest.fixture(scope="module")
def pair(tmp_path_factory, tiny_store):
    """Two processes under torchrun."""
    run = tmp_path_factory.mktemp("pair") / "run"
    finish(start("plain", run, tiny_store, processes=2, **SHAPE, **{"scale.workers": 2}))
    return run


def test_run_folder_is_complete(alone):
    ledger, metrics = rows(alone / "ledger.jsonl"), rows(alone / "metrics.jsonl")
    assert [r["step"] for r in ledger] == [r["step"] for r in metrics] == list(range(STEPS))
    assert [r["position"] for r in ledger] == list(range(0, 4 * STEPS, 4))
    assert all(len(r["sample_ids"]) == 4 for r in ledger)
    newest = alone / "checkpoints/step-00000024"
    state = json.loads((newest / "state.json").read_text())
    assert (state["step"], state["position"], state["world_size"]) == (24, 96, 1)
    assert (newest / "COMMITTED").exists() and (alone / "checkpoints/step-00000020/COMMITTED").exists()
    assert set(json.loads((newest / "manifest.json").read_text())["files"]) >= {"state.json"}


def test_two_workers_see_the_same_batches_with_the_same_losses(alone, pair):
    assert rows(pair / "ledger.jsonl") == rows(alone / "ledger.jsonl")
    for two, one in zip(rows(pair / "metrics.jsonl"), rows(alone / "metrics.jsonl"), strict=True):
        # Sums in another order move the weights apart: of single steps' losses, the first ones say most.
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5 if one["step"] < 8 else 1e-3)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4 if one["step"] < 8 else 1e-2)


def test_evaluation_on_the_way_disturbs_nothing(alone, tmp_path, tiny_store):
    run = tmp_path / "run"
    settings = {"evaluation.split": "train", "evaluation.every": 10, "evaluation.every_samples": 5}
    finish(start("plain", run, tiny_store, **ALONE, **settings))
    assert_same_run(run, alone)
    found = rows(run / "metrics.jsonl")
    assert [r["step"] for r in found if "val" in r] == [9, 19]
    assert all(v["n"] == 5 and 0 <= v["gIoU"] <= 1 for r in (found[9], found[19]) for v in r["val"].values())
    assert set(found[9]["val"]) == {"interactive", "referring", "reasoning"}
    assert all(r["train_eval"] == r["val"] for r in (found[9], found[19]))  # the same split, the same samples
    assert [r["step"] for r in found if "grad_norms" in r] == [9, 19]
    squares = sum(norm**2 for norm in found[9]["grad_norms"].values())
    assert squares**0.5 == pytest.approx(found[9]["grad_norm"], rel=1e-3)
    for name in ("empty", "full", "soft_dice"):
        values = [v for r in found for v in r[name].values() if v is not None]
        assert values and all(0 <= v <= 1 for v in values)


def test_resume_from_before_a_damaged_checkpoint_replays_exactly(alone, tmp_path, tiny_store):
    run = tmp_path / "run"
    shutil.copytree(alone, run)
    shard = next((run / "checkpoints/step-00000024").glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    output = finish(start("plain", run, tiny_store, **ALONE, resume=True))
    assert "damaged" in output and "resuming from step 20 " in output
    assert_same_run(run, alone)


def test_a_checkpoint_alone_gives_the_run_s_export(alone, tmp_path):
    answer = convert_model(alone / "checkpoints/step-00000024", "unigeoseg", tmp_path / "out")
    exported, own = load_file(str(tmp_path / "out/model.safetensors")), weights(alone)
    assert answer["tensors"] == len(exported) and exported.keys() == own.keys()
    assert all((exported[k] == own[k]).all() for k in own)
    seen = [
        json.loads((folder / "config.json").read_text())["seen_at"]
        for folder in (tmp_path / "out", alone / "export")
    ]
    assert seen[0] == seen[1] == json.loads((alone / "seen_at.json").read_text())
    assert seen[0]["shrink"][1] > 0 and seen[0]["gsd"] is None


def test_resume_with_another_configuration_is_refused(alone, tiny_store):
    output = finish(start("plain", alone, tiny_store, **{**SHAPE, "train.lr": 0.5}, resume=True), code=2)
    assert "train.lr: 0.001 -> 0.5" in output and "train.micro_batch" in output


BAD = 2


@pytest.fixture(scope="module")
def bad(alone, tiny_store, tmp_path_factory):
    """The store with one sample, in step ``BAD``, whose text the model of these options cannot bear."""
    name = _planned(tiny_store, BAD)[-1]

    def damage(number, encoded, record):
        for sample in record["samples"]:
            if sample["sample_id"] == name:
                sample["instruction"] += " Ω"

    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(alone / "export", folder / "export")
    state, tokenizer = weights(alone), load_tokenizer(alone / "tokenizer")
    table = state["language.model.model.embed_tokens.weight"]
    table[sorted(set(tokenizer.encode(" Ω")) - set(tokenizer.encode(" ")))] = 3e38
    save_file(state, str(folder / "export/model.safetensors"))
    options = {"init.model": str(folder / "export"), "tokenizer.path": str(alone / "tokenizer")}
    return write_store(folder / "store", damage=damage), name, options


def _planned(store: Path, step: int) -> list[str]:
    """Samples of a step of the tests' shortest run."""
    index = StoreIndex.open(str(store))
    return index.sample_ids(Plan.from_config(index, Config.model_validate(tiny_values())).batch(step).rows)


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
    metrics, ledger = rows(run / "metrics.jsonl"), rows(run / "ledger.jsonl")
    assert [r["step"] for r in metrics] == [r["step"] for r in ledger] == list(range(8))
    assert [r["loss"] is None for r in metrics] == [step == BAD for step in range(8)]
    assert [r["skipped_steps"] for r in metrics] == [int(step >= BAD) for step in range(8)]
    state = json.loads((run / "checkpoints/step-00000008/state.json").read_text())
    assert state["skipped_steps"] == 1
    assert all(v.isfinite().all() for k, v in weights(run).items())
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (tracked,) = client.search_runs(["1"])
    assert tracked.info.status == "FINISHED" and tracked.data.metrics["train/skipped_steps"] == 1
    losses = [m.step for m in client.get_metric_history(tracked.info.run_id, "train/loss")]
    assert losses == [step for step in range(8) if step != BAD]


def _diagnostic(run: Path) -> dict:
    (file,) = (run / "diagnostics").glob("*.json")
    return json.loads(file.read_text())
