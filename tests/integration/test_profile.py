"""Traces of chosen steps: there, of those steps alone, and of a training that goes as without them."""

import gzip
import json

import pytest

from jobs.cli import cli, run
from tests.fault_runs import LONG, assert_same_run
from tests.train_runs import finish, start

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_chosen_steps_of_chosen_workers_are_traced(tmp_path, tiny_store, undisturbed):
    traced = tmp_path / "traced"
    settings = {"train.profile.steps": [3, 4], "train.profile.ranks": [1], "train.profile.memory": True}
    finish(start("plain", traced, tiny_store, processes=2, **LONG, **settings))
    assert_same_run(traced, undisturbed)
    files = {path.name for path in (traced / "profile").iterdir()}
    assert files == {"rank-1-steps-3-4.json.gz", "rank-1-steps-3-4.txt"}
    with gzip.open(traced / "profile/rank-1-steps-3-4.json.gz") as file:
        events = json.load(file)["traceEvents"]
    products = [e for e in events if e.get("name") == "aten::addmm" and e.get("ph") == "X"]
    assert len(products) % 2 == 0 and products, "the same operations in both steps"
    assert any(e.get("name") == "[memory]" for e in events)
    assert "aten::" in (traced / "profile/rank-1-steps-3-4.txt").read_text()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.profile.steps=[5, 8]", "goes past the run's last step, 7"),
        ("train.profile.steps=[5, 4]", "give the first and the last step"),
        ("train.profile.steps=[-1, 4]", "give the first and the last step"),
    ],
)
def test_steps_that_there_will_not_be(tmp_path, tiny_store, setting, message, capsys):
    words = ["train", "--preset", "quickstart", "--store", str(tiny_store), "--run", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        run(cli, [*words, "--dry-run", "--set", "train.steps=8", "--set", setting])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_worker_that_there_will_not_be(tmp_path, tiny_store, capsys):
    words = ["train", "--preset", "quickstart", "--store", str(tiny_store), "--run", str(tmp_path / "run")]
    asked = ("--set", "train.profile.steps=[1, 1]", "--set", "train.profile.ranks=[0, 2]")
    with pytest.raises(SystemExit) as ended:
        run(cli, [*words, "--dry-run", *asked])
    assert ended.value.code == 2
    assert "train.profile.ranks names 2, and the run has 2 workers" in capsys.readouterr().err
