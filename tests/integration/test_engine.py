"""The engine in every ZeRO stage, alone and as two ranks, against plain PyTorch; each resumes the other."""

import json
from pathlib import Path

import pytest
import torch

from pipelines.runs.manifest import checkpoint_name
from pipelines.train.engine.pieces import KINDS, WEIGHT
from pipelines.train.engine.shards import ShardReader
from tests.engine_runs import (
    AHEAD,
    SAVED,
    STEPS,
    ahead_runs,
    option_runs,
    resumed_runs,
    skipping_runs,
    whole_runs,
)
from tests.warm import start_warm

pytestmark = pytest.mark.integration


def _results(folder: Path, *options: str) -> tuple[dict, Path]:
    """Losses and gradient norms of all runs by name, and where their checkpoints are."""
    processes = [
        start_warm("tests.engine_runs", folder, *options, joined=True, ranks=ranks) for ranks in (1, 2)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=500)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
    found: dict = {}
    for world in (1, 2):
        found |= json.loads((folder / f"world-{world}.json").read_text())
    return found, folder


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return _results(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    return _results(tmp_path_factory.mktemp("engines"), "all")


def _trains_as_torch(results, run):
    found, plain = results[0][run.name], results[0]["torch"]
    assert len(found["loss"]) == STEPS and plain["loss"][-1] < plain["loss"][0]
    assert min(plain["norm"]) > 0.3, "clipping must bite"
    assert found["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert found["norm"] == pytest.approx(plain["norm"], rel=1e-4)
    for ours, theirs in zip(found["modules"], plain["modules"], strict=True):
        assert ours.keys() == theirs.keys()
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6)


def _trains_as_torch_with_its_options(results, run):
    narrow, muon = run.config.train.precision == "bf16", run.config.train.optimizer == "muon"
    dropout = run.config.model.tate.dropout > 0
    name = "torch with muon" if muon else "torch" if narrow else "torch with adapters"
    name = "torch with dropout" if dropout else name
    found, plain = results[0][run.name], results[0][name]
    near = 0.02 if narrow else 1e-5
    assert found["loss"] != results[0]["torch"]["loss"]
    assert found["loss"] == pytest.approx(plain["loss"], rel=near)
    assert found["norm"] == pytest.approx(plain["norm"], rel=10 * near)


def _leaves_the_bad_step_out(results, run):
    """As plain PyTorch that never had it: neither weights nor moments nor their step count were touched."""
    found, plain = results[0][run.name], results[0]["torch without a step"]
    near = 0.02 if run.config.train.precision == "bf16" else 1e-5
    assert len(found["loss"]) == STEPS - 1
    assert found["loss"] == pytest.approx(plain["loss"], rel=near)
    assert found["norm"] == pytest.approx(plain["norm"], rel=10 * near)
    assert set(ShardReader.open(results[1] / run.name / checkpoint_name(SAVED)).steps.values()) == {SAVED - 1}


def _is_the_same_with_its_batches_ahead(results, run):
    found, same = results[0][run.name], results[0][run.name.removesuffix(AHEAD)]
    assert all(found[what] == same[what] for what in ("loss", "norm", "modules"))
    assert set(same["ahead"]) == {0} and len(found["ahead"]) == len(same["ahead"]) >= STEPS
    rest = {0} if run.stage == 3 else {1}  # stage 3 cuts the encoder, so that only the copy comes ahead
    assert found["ahead"][0] == 0 and set(found["ahead"][1:]) == rest


def _goes_on(results, run):
    found, source = results[0][run.name], results[0][run.source]
    assert len(found["loss"]) == STEPS - SAVED
    assert found["loss"] == pytest.approx(source["loss"][SAVED:], rel=1e-5)
    assert found["norm"] == pytest.approx(source["norm"][SAVED:], rel=1e-4)
    before, after = (
        ShardReader.open(results[1] / name / checkpoint_name(SAVED)) for name in (run.source, run.name)
    )
    assert before.shapes == after.shapes and before.steps == after.steps
    assert set(after.steps.values()) == {SAVED}
    for name, shape in before.shapes.items():
        for kind in KINDS if run.config.train.optimizer == "adamw" else (WEIGHT, "exp_avg"):
            values = [torch.empty(shape).flatten() for _ in range(2)]
            before.read(kind, name, 0, values[0])
            after.read(kind, name, 0, values[1])
            assert torch.equal(*values), (kind, name)


def _named(runs):
    return pytest.mark.parametrize("run", [r for w in (1, 2) for r in runs(w)], ids=lambda r: r.name)


@_named(lambda world: whole_runs(world, every=False))
def test_every_stage_and_split_trains_as_plain_torch_does(quick, run):
    _trains_as_torch(quick, run)


@_named(lambda world: option_runs(world, every=False))
def test_adapters_and_bfloat16_train_as_plain_torch_does(quick, run):
    _trains_as_torch_with_its_options(quick, run)


@_named(lambda world: resumed_runs(world, every=False))
def test_a_checkpoint_goes_on_in_another_stage_and_world_size(quick, run):
    _goes_on(quick, run)


@_named(lambda world: skipping_runs(world, every=False))
def test_a_step_that_is_not_finite_touches_nothing(quick, run):
    _leaves_the_bad_step_out(quick, run)


@_named(lambda world: ahead_runs(world, every=False))
def test_a_batch_that_is_brought_ahead_gives_the_same_numbers(quick, run):
    _is_the_same_with_its_batches_ahead(quick, run)


@pytest.mark.slow
@_named(ahead_runs)
def test_all_batches_that_are_brought_ahead(every, run):
    _is_the_same_with_its_batches_ahead(every, run)


@pytest.mark.slow
@_named(skipping_runs)
def test_such_a_step_in_every_stage(every, run):
    _leaves_the_bad_step_out(every, run)


@pytest.mark.slow
@_named(whole_runs)
def test_all_stages_and_splits(every, run):
    _trains_as_torch(every, run)


@pytest.mark.slow
@_named(option_runs)
def test_adapters_and_bfloat16_in_every_stage(every, run):
    _trains_as_torch_with_its_options(every, run)


@pytest.mark.slow
@_named(resumed_runs)
def test_all_ways_to_go_on(every, run):
    _goes_on(every, run)
