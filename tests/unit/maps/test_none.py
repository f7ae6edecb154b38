"""Windows with none of what is asked for: nothing is marked there, the next one decides what it shares."""

import json
import shutil

import numpy as np
import pytest
import rasterio

from pipelines.evaluate.predict import predict_file
from pipelines.evaluate.presence import SCORES, NoneRule, presence_scores, write_rule
from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from tests.geotiffs import UTM, scene, write
from tests.unit.maps.conftest import SIZE
from unigeoseg.errors import UserError
from unigeoseg.question import Question

ASK = Question.ask(text="the block")


@pytest.fixture
def rule_of(export, tmp_path):
    """The export with a rule beside its weights."""

    def make(limit, score="mean"):
        folder = tmp_path / f"export-{score}-{limit}"
        shutil.copytree(export, folder, dirs_exist_ok=True)
        write_rule(str(folder), NoneRule(score, limit))
        return str(folder)

    return make


@pytest.fixture
def raster(tmp_path):
    return write(tmp_path / "scene.tif", scene(100, 148), UTM)


def mapped(export, path, out, **more):
    asked = {"text": "the block"} | more
    told = make_map(Request(model=export, inputs=(str(path),), out=str(out), **asked), progress=False)
    with rasterio.open(out / "mask.tif") as data:
        return told, data.read(1)


def test_a_rule_that_passes_all_changes_nothing_and_one_that_passes_none_marks_nothing(
    export, raster, rule_of, tmp_path
):
    told, plain = mapped(export, raster, tmp_path / "plain")
    assert told["none"] is None and any("never asked for what is not there" in w for w in told["warnings"])
    told, passing = mapped(rule_of(0.0), raster, tmp_path / "passing")
    assert (passing == plain).all() and told["none"] == {"score": "mean", "below": 0.0}
    assert not any("never asked" in warning for warning in told["warnings"])
    _, none = mapped(rule_of(1.0), raster, tmp_path / "none")
    assert (plain == 1).any() and not (none == 1).any() and ((none == 0) == (plain < 2)).all()
    _, off = mapped(rule_of(1.0), raster, tmp_path / "off", none=False)
    assert (off == plain).all()


def test_what_two_windows_share_is_decided_by_the_one_that_sees_something(
    segmenter, raster, rule_of, tmp_path
):
    """A limit between the scores: inside a silent window, away from the others, nothing is marked."""
    with rasterio.open(raster) as data:
        pixels = np.pad(data.read().transpose(1, 2, 0), ((0, 12), (0, 12), (0, 0)), "reflect")
    step = SIZE - SIZE // 4
    tops = [0, step]
    scores = {
        (i, j): presence_scores(
            segmenter.squares([pixels[i * step : i * step + SIZE, j * step : j * step + SIZE]], [ASK])[0]
        )[SCORES.index("soft")]
        for i in range(len(tops))
        for j in range(3)
    }
    ordered = sorted(scores.values())
    limit = (ordered[2] + ordered[3]) / 2
    _, plain = mapped(rule_of(0.0, "soft"), raster, tmp_path / "all")
    _, some = mapped(rule_of(limit, "soft"), raster, tmp_path / "some")
    assert (some == 1).sum() < (plain == 1).sum() and (some == 1).any()
    for (i, j), score in scores.items():
        own = (slice(i * step + 16, i * step + 48), slice(j * step + 16, j * step + 48))  # no other window's
        assert ((some[own] == 1) == ((plain[own] == 1) & (score >= limit))).all()


def test_a_raster_of_one_window_and_prompts(rule_of, tmp_path):
    path = write(tmp_path / "small.tif", scene(SIZE, SIZE), UTM)
    for limit in (0.0, 1.0):
        export = rule_of(limit, "peak")
        predict_file(export, path, ASK, tmp_path / f"predicted-{limit}")
        with rasterio.open(tmp_path / f"predicted-{limit}/mask.tif") as data:
            expected = data.read(1)
        _, mask = mapped(export, path, tmp_path / f"mapped-{limit}")
        assert (mask == expected).all()
        assert json.loads((tmp_path / f"mapped-{limit}/map.json").read_text())["none"]["below"] == limit


def test_a_limit_needs_a_score(export, raster, tmp_path):
    with pytest.raises(UserError, match=r"has no none\.json"):
        mapped(export, raster, tmp_path / "out", none=0.5)
