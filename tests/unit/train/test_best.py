"""The best checkpoint: which metric decides, what is refused, what stays, when training ends early."""

import pytest
import yaml

from pipelines.config import CheckpointConfig, Config
from pipelines.runs.folder import RunFolder
from pipelines.runs.manifest import committed_steps
from pipelines.tracking.metric_names import BEST_BY, validation_metrics
from pipelines.train.checkpoints.best import Best, recalled
from pipelines.train.checkpoints.writer import CheckpointWriter
from tests.tiny_store import write_store
from tests.train_runs import tiny_values
from tests.unit.test_cli_errors import check, here
from tests.unit.train.test_checkpoints import _OneRank

VAL = {"interactive": {"n": 4, "gIoU": 0.5, "cIoU": 0.4}, "reasoning": {"n": 2, "gIoU": 0.1, "cIoU": 0.2}}
BY = {"best_by": "val/gIoU"}


def test_an_evaluation_has_every_name_that_may_decide():
    found = validation_metrics(VAL)
    assert found == {
        "val/gIoU": pytest.approx(0.3),
        "val/cIoU": pytest.approx(0.3),
        "val/interactive/gIoU": 0.5,
        "val/interactive/cIoU": 0.4,
        "val/reasoning/gIoU": 0.1,
        "val/reasoning/cIoU": 0.2,
    }
    assert found.keys() <= BEST_BY.keys() and validation_metrics({}) == {}


@pytest.mark.parametrize(
    ("name", "values", "best"), [("val/gIoU", (1, 3, 2, 3), 2), ("loss", (3, 1, 2, 1), 2)]
)
def test_the_metric_says_what_is_better_and_the_first_of_equals_stays(name, values, best):
    found = Best(CheckpointConfig(best_by=name, keep_best=1), patience=2)
    better = [found.offer(step, {name: value}) for step, value in enumerate(values, 1)]
    assert better == [True, True, False, False]
    assert (found.step, found.measured, found.waited, found.exhausted) == (best, 4, 2, True)
    assert f"than {values[1]:.4f} of step 2 in 2 evaluations" in found.why_stopped
    again = Best(CheckpointConfig(best_by=name, keep_best=1), 3, found.state())
    assert again.state() == found.state() and not again.exhausted
    assert not again.offer(5, {"another": 9.0}) and again.waited == 2


def _run(tmp_path, values, **changes):
    """A run that measured ``values`` by step, and its checkpoints of all of them."""
    run, settings = RunFolder(tmp_path / "run"), CheckpointConfig(patience_s=0, keep=1, **BY, **changes)
    checkpoints, best = CheckpointWriter(_OneRank(), run, settings), Best(settings)
    for step, value in values.items():
        metrics = {} if value is None else {"val/gIoU": value, "val/cIoU": -value}
        best.offer(step, metrics)
        checkpoints.save({"step": step, "metrics": metrics, "best": best.state()})
        checkpoints.finish()
    return run, best


def test_the_best_outlives_any_number_of_newer_ones(tmp_path):
    run, best = _run(tmp_path, {1: 0.2, 2: 0.5, 3: None, 4: 0.5, 5: 0.1, 6: None})
    assert committed_steps(run) == [2, 6]
    assert best.kept() == {
        "metric": "val/gIoU",
        "value": 0.5,
        "step": 2,
        "checkpoint": "checkpoints/step-00000002",
        "of": 4,
    }


def test_a_resumed_run_knows_it_and_another_metric_is_looked_up(tmp_path):
    run, best = _run(tmp_path, {1: 0.5, 2: 0.2, 3: 0.3}, keep_best=3)
    state = {"step": 3, "best": best.state()}
    assert recalled(run, CheckpointConfig(**BY), state) == best.state()
    other = recalled(run, CheckpointConfig(best_by="val/cIoU"), state)
    assert (other["metric"], other["step"], other["value"], other["waited"]) == ("val/cIoU", 2, -0.2, 0)
    assert recalled(run, CheckpointConfig(best_by="val/cIoU"), {"step": 1})["step"] == 1
    gone = {"step": 3, "best": {**best.state(), "step": 99, "value": 0.9}}
    assert recalled(run, CheckpointConfig(**BY), gone)["step"] == 1


@pytest.fixture
def dry_run(tmp_path, capfd):
    """``unigeoseg train --dry-run`` with settings, and what it must say."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_values(**{"evaluation.every": 4})))
    write_store(tmp_path / "store", per_image=(2, 1, 0))

    def run(*sets, code=2, parts=()):
        arguments = ["--preset", tmp_path / "tiny.yaml", "--store", tmp_path / "store", "--dry-run"]
        sets = ("pts.schedule=constant", *sets)
        done = here(capfd, "train", *map(str, arguments), *(w for s in sets for w in ("--set", s)))
        check(done, code, *parts) if code else None
        assert done.returncode == code

    return run


@pytest.mark.parametrize(
    ("sets", "parts"),
    [
        (
            ["checkpoint.best_by=val/giou"],
            ["checkpoint.best_by", "did you mean val/gIoU", "val/referring/cIoU"],
        ),
        (["checkpoint.best_by=val/gIoU", "evaluation.every=null"], ["set evaluation.every"]),
        (["checkpoint.best_by=val/gIoU", "engine.zero_stage=3"], ["engine.zero_stage=3", "best_by=loss"]),
        (["evaluation.patience=2"], ["evaluation.patience=2", "checkpoint.best_by=val/gIoU"]),
        (["checkpoint.best_is=highest"], ["would keep the worst"]),
        (["checkpoint.best_by=val/gIoU"], ["needs held-out samples", "'val'"]),
        (
            ["checkpoint.best_by=val/reasoning/gIoU", "evaluation.split=train"],
            ["no reasoning sample", "interactive and referring", "use val/interactive/gIoU"],
        ),
    ],
)
def test_what_cannot_decide_is_refused_before_anything_runs(dry_run, sets, parts):
    dry_run(*sets, parts=parts)


@pytest.mark.parametrize(
    "setting", ["init.mask2former", "init.model", "model.language.path", "tokenizer.path", "init.vision"]
)
def test_weights_that_are_not_there_are_refused_too(dry_run, setting):
    backbone = ("model.vision.backbone=resnet18",) if setting == "init.vision" else ()
    dry_run(*backbone, f"{setting}=/nowhere", parts=(f"{setting}=/nowhere", "nothing is there"))


def test_what_can_is_not(dry_run):
    dry_run(
        "checkpoint.best_by=val/referring/cIoU", "evaluation.split=train", "evaluation.patience=3", code=0
    )


def test_defaults_keep_what_they_kept():
    settings = CheckpointConfig()
    assert (settings.best_kept, settings.more_is_better, settings.export) == (0, False, "last")
    assert CheckpointConfig(export="best").best_kept == 1
    assert Config.model_validate(tiny_values()).evaluation.patience is None
