"""The probability at which a model's masks are cut travels with its export and counts at every door."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import unigeoseg
from pipelines.config.job import Config
from pipelines.evaluate.command import evaluate_command
from pipelines.evaluate.predict import predict_file
from pipelines.evaluate.predict_many import predict_many
from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from tests.geotiffs import scene
from unigeoseg.config import ModelConfig
from unigeoseg.question import Question

OWN = 0.45
ASK = Question.ask(text="the block")


@pytest.fixture(scope="module")
def with_own(export, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "export"
    shutil.copytree(export, folder)
    content = json.loads((folder / "config.json").read_text())
    assert content["model"]["threshold"] == 0.5
    content["model"]["threshold"] = OWN
    (folder / "config.json").write_text(json.dumps(content))
    return str(folder)


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(np.moveaxis(scene(50, 70), 0, -1)).save(tmp_path / "x.png")
    return tmp_path / "x.png"


def test_segment_and_predict_cut_there(export, with_own, picture, tmp_path):
    own, half = unigeoseg.load(with_own, "cpu"), unigeoseg.load(export, "cpu")
    mask = own.segment(picture, text="the block").mask
    assert (mask == half.segment(picture, text="the block", threshold=OWN).mask).all()
    assert mask.sum() > half.segment(picture, text="the block").mask.sum()
    told = predict_file(with_own, picture, ASK, tmp_path / "one")
    assert (
        told["threshold"] == OWN and (np.array(Image.open(tmp_path / "one/mask.png")) > 0).sum() == mask.sum()
    )
    assert predict_file(with_own, picture, ASK, tmp_path / "half", 0.5)["threshold"] == 0.5
    predict_many(with_own, str(picture), tmp_path / "many", ASK, progress=False)
    (found,) = tmp_path.glob("many/*/mask.png")
    assert found.read_bytes() == (tmp_path / "one/mask.png").read_bytes()


def test_evaluation_cuts_there(with_own, store):
    result = evaluate_command(with_own, store, "val", plots=False)
    assert result["threshold"]["used"] == OWN
    asked = evaluate_command(with_own, store, "val", plots=False, threshold=0.5)
    assert asked["threshold"]["used"] == 0.5
    assert {task: v["gIoU"] for task, v in asked["tasks"].items()} != {
        task: v["gIoU"] for task, v in result["tasks"].items()
    }
    told = evaluate_command(with_own, store, "val", plots=False, threshold=OWN)
    assert told["tasks"] == result["tasks"]


def test_a_map_is_cut_there(with_own, picture, tmp_path):
    request = Request(
        with_own, (str(picture),), str(tmp_path / "map"), text="the block", pixels=True, formats=("gpkg",)
    )
    assert make_map(request, progress=False)["threshold"] == OWN


def test_evaluations_of_a_run_take_the_models_unless_asked():
    config = Config.model_validate({"name": "t", "model": {"threshold": OWN}})
    assert config.threshold == OWN
    assert (
        Config.model_validate(
            {"name": "t", "model": {"threshold": OWN}, "evaluation": {"threshold": 0.6}}
        ).threshold
        == 0.6
    )


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.2])
def test_what_is_no_probability(value):
    with pytest.raises(ValueError, match="no probability"):
        ModelConfig(threshold=value)
    with pytest.raises(ValueError, match="no probability"):
        Config.model_validate({"name": "t", "model": {"threshold": value}})
