"""Search spaces: what is drawn, and one clear line for each mistake."""

import pytest
from ray import tune

from jobs.settings import load_config
from pipelines.config import Config
from pipelines.experiments.space import load_space
from pipelines.experiments.sweep import best_preset
from pipelines.experiments.trial import nest, summary_result, validation_result
from unigeoseg.errors import UserError

CONFIG = Config.model_validate({"name": "t"})


def _file(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return path


def test_a_space_becomes_tune_s(tmp_path):
    path = _file(
        tmp_path,
        "metric: loss\nmode: min\nspace:\n  train.lr: {loguniform: [1.0e-4, 1.0e-2]}\n"
        "  model.lkm.weight: {choice: [0.1, 0.2]}\n  train.global_batch: {grid_search: [8, 16]}\n",
    )
    space = load_space(path, CONFIG)
    found = space.for_tune()
    assert (space.metric, space.mode) == ("loss", "min")
    assert isinstance(found["train.lr"], tune.search.sample.Float) and found["train.lr"].upper == 1e-2
    assert found["model.lkm.weight"].categories == [0.1, 0.2]
    assert found["train.global_batch"] == {"grid_search": [8, 16]}
    assert nest(space.first_values()) == {
        "train": {"lr": 1e-4, "global_batch": 8},
        "model": {"lkm": {"weight": 0.1}},
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("space: {}", "is empty"),
        ("space: [", "not valid YAML"),
        ("space: {train.lr: {loguniform: [0.1, 1]}}\nmode: up", "mode is 'up'"),
        ("space: {train.lr: {gauss: [0.1, 1]}}", "expected one of choice"),
        ("space: {train.lr: {choice: []}}", "expected one of choice"),
        ("space: {train.rate: {choice: [1]}}", "train.rate"),
        ("space: {train.lr: {choice: [-1]}}", "train.lr"),
        ("area: {}", "space"),
    ],
)
def test_bad_spaces_are_refused(tmp_path, text, says):
    with pytest.raises(UserError, match=says):
        load_space(_file(tmp_path, text), CONFIG)


def test_a_sweep_without_its_file_says_so(tmp_path):
    with pytest.raises(UserError, match="cannot read the search space"):
        load_space(tmp_path / "none.yaml", CONFIG)


def test_what_a_trial_reports_is_the_mean_over_tasks():
    tasks = {"interactive": {"gIoU": 0.5, "cIoU": 0.25, "n": 3}, "reasoning": {"gIoU": 0.1, "cIoU": 0.75}}
    assert validation_result(tasks) == {
        "val/interactive/gIoU": 0.5,
        "val/reasoning/gIoU": 0.1,
        "val/gIoU": pytest.approx(0.3),
        "val/interactive/cIoU": 0.25,
        "val/reasoning/cIoU": 0.75,
        "val/cIoU": 0.5,
    }
    assert summary_result({"steps": 7}) == {"step": 7}


def test_the_best_trial_is_a_preset(tmp_path):
    best = {"name": "trial-1", "value": 0.5, "values": {"train.lr": 0.002}}
    path = tmp_path / "best.yaml"
    path.write_text(best_preset(CONFIG, {"best": best, "trials": [best], "metric": "val/gIoU"}))
    loaded = load_config(str(path))
    assert loaded.train.lr == 0.002 and loaded.name == "t-best"
    assert loaded.model == CONFIG.model
