"""``data trace`` and ``plan`` as a user calls them."""

import json

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from jobs.plan import plan
from jobs.trace import add_stats, trace
from tests.tiny_store import write_store
from tests.unit.test_cli_errors import check, here
from unigeoseg.errors import UserError


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    preset = folder / "tiny.yaml"
    preset.write_text(yaml.safe_dump({"train": {"global_batch": 8, "steps": 20}, "scale": {"workers": 2}}))
    return str(write_store(folder / "store")), "--preset", str(preset)


def call(command, *words):
    result = CliRunner().invoke(command, words)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_trace_json(arguments):
    one = json.loads(call(trace, *arguments, "--steps", "0:6", "--world-size", "1", "--json"))
    four = json.loads(call(trace, *arguments, "--steps", "2:6", "--world-size", "4", "--json"))
    assert one["fingerprint"] == four["fingerprint"]
    assert [s["step"] for s in four["steps"]] == [2, 3, 4, 5]
    for a, b in zip(one["steps"][2:], four["steps"], strict=True):
        assert a["position"] == b["position"] == 8 * a["step"]
        assert len(b["ranks"]) == len(b["tasks"]) == 4
        assert [i for rank in b["ranks"] for i in rank] == a["ranks"][0]
        assert all(
            name.split("/")[2] == task for name, task in zip(a["ranks"][0], a["tasks"][0], strict=True)
        )
    other = json.loads(call(trace, *arguments, "--steps", "0:1", "--set", "seed=5", "--json"))
    assert other["fingerprint"] != one["fingerprint"]
    assert len(other["steps"][0]["ranks"]) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--steps", "5"], "expected A:B"),
        (["--steps", "a:b"], "expected A:B"),
        (["--steps", "4:4"], "A must be smaller"),
        (["--steps", "0:21"], "0:20"),
        (["--world-size", "16"], "world size 16 is larger than train.global_batch=8"),
        (["--world-size", "3"], "global_batch=8 cannot be split over world size 3; use 6 or 9"),
        (["--set", "train.global_batch=7"], "use 6 or 8"),
        (["--set", "pts.end_weight=1.2"], "pts.end_weight"),
        (["--set", "pts.base={interactive: -1, referring: 2}"], "share of interactive is -1"),
        (["--set", "pts.record=[[1, 1, 1]]"], "pts.record is of no use with pts.schedule=linear"),
    ],
)
def test_trace_refuses(arguments, capfd, words, says):
    check(here(capfd, "data", "trace", *arguments, *words), 2, says)


def test_a_share_for_a_task_without_samples(arguments, tmp_path, capfd):
    store = str(write_store(tmp_path, per_image=(3, 2, 0)))
    done = here(capfd, "data", "trace", store, *arguments[1:])
    check(done, 2, "gives reasoning a share", "no reasoning sample", "pts.schedule=constant")


def test_trace_with_a_sheet(arguments, tmp_path):
    out = tmp_path / "new" / "look.png"
    result = json.loads(call(trace, *arguments, "--steps", "0:2", "--sheet", str(out), "--json"))
    assert result["sheet"] == str(out)
    picture = np.asarray(Image.open(out))
    assert picture.std() > 10
    assert picture.shape[0] > 4 * 100  # a row for each of two steps and two workers
    with pytest.raises(UserError, match="sheet holds 256"):
        call(trace, *arguments, "--steps", "0:20", "--set", "train.global_batch=32", "--sheet", str(out))


def test_plan_with_picture(arguments, tmp_path):
    store, *rest = arguments
    out = tmp_path / "shares.png"
    result = json.loads(call(plan, "--store", store, *rest, "--out", str(out), "--json"))
    assert result["steps"] == 20
    assert sum(t["positions"] for t in result["tasks"].values()) == 160
    traced = json.loads(call(trace, *arguments, "--steps", "0:3", "--world-size", "1", "--json"))
    assert [b["sample_ids"] for b in result["first_batches"]] == [s["ranks"][0] for s in traced["steps"]]
    assert result["fingerprint"] == traced["fingerprint"]
    assert np.asarray(Image.open(out)).std() > 10
    assert "interactive" in call(plan, "--store", store, *rest)


def test_statistics_add_up():
    one = {"wait": 1.5, "quarantined": {"text": 1}}
    assert add_stats(one, {"wait": 0.5, "quarantined": {"text": 2, "mask_size": 1}}) == {
        "wait": 2.0,
        "quarantined": {"text": 3, "mask_size": 1},
    }
