"""Training from given weights and with adapters, whole: weights in, report, resume, plain export out."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipelines.config import Config
from pipelines.train.engine.shards import ShardReader
from tests.tiny_store import write_store
from tests.train_runs import ROOT, finish, start, tiny_values
from unigeoseg.export import load_export

pytestmark = pytest.mark.integration
UNFREEZE = {"train.encoder_lr": 0.1, "train.encoder_lr_decay": 0.8}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def first(tmp_path_factory, store):
    run = tmp_path_factory.mktemp("first") / "run"
    finish(start("plain", run, store, **{"train.steps": 2, **UNFREEZE}))
    return run


def test_a_run_starts_from_an_export_with_adapters_and_resumes(first, store, tmp_path):
    options = {
        "init.model": str(first / "export"),
        "tokenizer.path": str(first / "tokenizer"),
        "train.lora.rank": 2,
        "train.lora.embeddings": False,
        "checkpoint.every": 2,
        "train.steps": 4,
    }
    run = tmp_path / "run"
    finish(start("plain", run, store, **options))
    report = json.loads((run / "weights.json").read_text())
    assert report[0]["counts"]["missing"] == report[0]["counts"]["unexpected"] == 0
    before, after = _weights(first), _weights(run)
    assert before.keys() == after.keys()
    layer = "language.model.model.layers.0.mlp.fc1.weight"
    update = after[layer] - before[layer]
    assert 0 < torch.linalg.matrix_rank(update.double(), rtol=1e-4) <= 2
    name = "language.model.model.layers.0.mlp.fc1.bias"
    assert torch.equal(after[name], before[name])
    load_export(run / "export")
    (run / "export" / "model.safetensors").unlink()
    for path in sorted((run / "checkpoints").glob("step-00000004/*")):
        path.unlink() if path.is_file() else None
    finish(start("plain", run, store, **options, resume=True))
    resumed = _weights(run)
    for key, value in after.items():
        torch.testing.assert_close(resumed[key], value, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_weights_are_found_by_a_path_relative_to_where_the_command_was_given(first, store, tmp_path):
    """Workers of Ray Train have working directories of their own."""
    there = {
        "init.model": os.path.relpath(first / "export", ROOT),
        "tokenizer.path": os.path.relpath(first / "tokenizer", ROOT),
    }
    run = tmp_path / "run"
    finish(start("ray", run, store, **there, **UNFREEZE, **{"train.steps": 1}))
    assert json.loads((run / "weights.json").read_text())[0]["counts"]["missing"] == 0
    assert Path(yaml.safe_load((run / "config.yaml").read_text())["init"]["model"]).samefile(first / "export")


def test_a_finished_run_goes_on_as_a_new_one_with_its_moments(first, store, tmp_path):
    """The new moment is made of the same gradient in both runs, and of the old moment in one of them."""
    export = {"init.model": str(first / "export"), "tokenizer.path": str(first / "tokenizer")}
    options = {**export, **UNFREEZE, "train.steps": 1, "checkpoint.every": 1}
    finish(start("plain", tmp_path / "fresh", store, **options))
    output = finish(start("plain", tmp_path / "more", store, **options, **{"init.optimizer": str(first)}))
    fresh, more, before = (
        ShardReader.open(next((run / "checkpoints").iterdir()))
        for run in (tmp_path / "fresh", tmp_path / "more", first)
    )
    count = len(before.shapes)
    assert f"optimizer state of {count} of {count} parameters taken" in output
    decay = Config.model_validate(tiny_values()).train.betas[0]
    for name, shape in before.shapes.items():
        first_moment = []
        for reader in (fresh, more, before):
            flat = torch.empty(math.prod(shape))
            reader.read("exp_avg", name, 0, flat)
            first_moment.append(flat)
        torch.testing.assert_close(
            first_moment[1] - first_moment[0], decay * first_moment[2], rtol=1e-3, atol=1e-6
        )
    told = finish(
        start("plain", tmp_path / "none", store, **options, **{"init.optimizer": str(tmp_path)}), code=2
    )
    assert "has no whole checkpoint" in told


def test_weights_that_do_not_fit_stop_the_run_with_the_reason(first, store, tmp_path):
    output = finish(
        start(
            "plain",
            tmp_path / "run",
            store,
            **{"init.model": str(first / "export"), "model.decoder.hidden": 64},
        ),
        code=2,
    )
    assert "user error" in output and "other sizes" in output


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(str(run / "export/model.safetensors"))
