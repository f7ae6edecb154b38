"""A sweep goes on with what it was begun with, and with nothing else; no Ray is started to find out."""

import pytest
import ray
import yaml

from jobs.cli import cli, run
from jobs.settings import load_config
from pipelines.experiments.begun import BEGUN, check_begun, described, write_begun
from pipelines.experiments.session import check_store
from pipelines.experiments.space import load_space
from pipelines.experiments.sweep import TUNE, SweepSettings
from tests.tiny_store import write_store
from tests.train_runs import tiny_values
from unigeoseg.errors import UserError

SPACE = {"metric": "loss", "mode": "min", "space": {"train.lr": {"grid_search": [1e-3, 2e-3]}}}


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A sweep that was interrupted; the options of the command that began it."""
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_values(**{"evaluation.split": "train"})))
    store = write_store(tmp_path / "store", images=12)
    config = load_config(str(tmp_path / "tiny.yaml"), ())
    settings = SweepSettings(trials=8, search="grid", concurrent=1)
    facts = described(config, load_space(tmp_path / "space.yaml", config), settings)
    (tmp_path / "sweep" / TUNE).mkdir(parents=True)
    write_begun(tmp_path / "sweep", facts, check_store(str(store), config))
    return {
        "--space": tmp_path / "space.yaml",
        "--preset": tmp_path / "tiny.yaml",
        "--store": store,
        "--search": "grid",
        "--out": tmp_path / "sweep",
    }


def refused(capfd, options, *more):
    capfd.readouterr()
    given = [str(part) for pair in options.items() for part in pair]
    with pytest.raises(SystemExit) as caught:
        run(cli, ["sweep", *given, "--resume", *map(str, more)])
    said = capfd.readouterr().err
    assert caught.value.code == 2 and "Traceback" not in said, said
    assert "another --out" in said
    return said


def test_another_preset(begun, capfd):
    said = refused(capfd, begun, "--set", "train.steps=77", "--set", "evaluation.max_samples=3")
    assert "preset.train.steps: " in said and "-> 77" in said and "preset.evaluation.max_samples" in said


def test_another_space(begun, capfd):
    other = SPACE | {
        "metric": "val/gIoU",
        "mode": "max",
        "space": {"train.lr": {"grid_search": [1e-3, 5e-3]}},
    }
    begun["--space"].write_text(yaml.safe_dump(other))
    said = refused(capfd, begun)
    assert "space train.lr: grid_search [0.001, 0.002] -> grid_search [0.001, 0.005]" in said
    assert "space metric: loss -> val/gIoU" in said and "space mode" in said


def test_other_options(begun, capfd):
    assert "settings.trials: 8 -> 9" in refused(capfd, begun, "--trials", 9)
    assert "settings.scheduler: asha -> fifo" in refused(capfd, begun, "--scheduler", "fifo")


def test_another_store(begun, capfd, tmp_path):
    other = write_store(tmp_path / "other", images=14)
    assert "dataset: " in refused(capfd, begun | {"--store": other})


def test_the_same_goes_on_also_with_another_number_side_by_side(begun, tmp_path):
    config = load_config(str(begun["--preset"]), ("tracking.uri=http://elsewhere", "scale.workers=1"))
    space = load_space(begun["--space"], config)
    facts = described(config, space, SweepSettings(trials=8, search="grid", concurrent=5))
    check_begun(tmp_path / "sweep", facts, check_store(str(begun["--store"]), config))
    check_begun(tmp_path / "sweep", facts, None)


def test_a_sweep_of_an_earlier_version_goes_on_with_a_warning(begun, tmp_path, caplog):
    (tmp_path / "sweep" / BEGUN).unlink()
    check_begun(tmp_path / "sweep", {}, None)
    assert "nobody has checked" in caplog.text
    (tmp_path / "sweep" / BEGUN).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        check_begun(tmp_path / "sweep", {}, None)
