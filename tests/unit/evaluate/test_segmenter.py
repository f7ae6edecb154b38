"""``unigeoseg.load(...).segment(...)``: the model as a library."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.features import rasterize

import unigeoseg
from pipelines.evaluate.predict import predict_file
from tests.geotiffs import scene, write
from tests.hub_server import hub_server
from unigeoseg.errors import UserError
from unigeoseg.outlines import mask_polygons
from unigeoseg.question import Question

RGB = np.moveaxis(scene(50, 70), 0, -1)


@pytest.fixture(scope="module")
def model(export):
    return unigeoseg.load(export, "cpu")


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    return tmp_path / "x.png"


@pytest.mark.parametrize(
    "asked",
    [
        {"text": "the block"},
        {"question": "Where would people be?"},
        {"box": (0.1, 0.2, 0.5, 0.6)},
        {"points": [(0.2, 0.3), (0.5, 0.5)]},
    ],
    ids=["text", "question", "box", "points"],
)
def test_path_array_and_list_agree_with_predict(model, export, picture, tmp_path, asked):
    one = model.segment(picture, **asked)
    assert one.mask.shape == (50, 70) and one.mask.dtype == bool
    assert (model.segment(RGB, **asked).mask == one.mask).all()
    assert (model.segment(str(picture), **asked).mask == one.mask).all()
    assert (model.segment(Image.fromarray(RGB), **asked).mask == one.mask).all()
    several = model.segment([RGB, RGB[:40], RGB], **asked, batch=2)
    assert [found.mask.shape for found in several] == [(50, 70), (40, 70), (50, 70)]
    assert (several[2].mask == one.mask).mean() > 0.99  # a batch of another size sums in another order
    told = predict_file(export, picture, Question.ask(**asked), tmp_path / "out")
    assert told["score"] == one.score


def test_a_picture_seen_once_answers_the_same_bits(model):
    asked = [
        Question.ask(text="the block"),
        Question.ask(question="Where would people be?"),
        Question.ask(box=(0.1, 0.2, 0.5, 0.6)),
        Question.ask(points=[(0.2, 0.3)]),
    ]
    seen = model.look(RGB)
    assert seen.nbytes > 0
    for one in asked:
        assert (model.squares([RGB], [one], seen) == model.squares([RGB], [one])).all()
    other = model.squares([RGB[::-1].copy()], asked[:1])
    assert (model.squares([RGB], asked[:1], seen) != other).any()


def test_polygons_filled_again_are_the_mask(model):
    found = model.segment(RGB, text="the block")
    assert found.polygons and (rasterize(found.polygons, (50, 70)) == found.mask).all()
    rng = np.random.default_rng(3)
    for share in (0.2, 0.5, 0.8):
        mask = rng.random((40, 60)) < share
        assert (rasterize(mask_polygons(mask), mask.shape) == mask).all()
    assert mask_polygons(np.zeros((4, 4), bool)) == []


def test_a_threshold_changes_mask_and_not_logits(model):
    low, high = (model.segment(RGB, text="the block", threshold=t) for t in (0.1, 0.9))
    assert low.mask.sum() >= high.mask.sum()
    assert not (high.mask & ~low.mask).any()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"\[height, width, 3\]"),
        (np.zeros((900, 3, 3), np.uint8), "too thin"),
        ("nothing.png", "does not exist"),
    ],
)
def test_pictures_that_cannot_be_used(model, image, message):
    with pytest.raises(UserError, match=message):
        model.segment(image, text="a")


def test_instructions_and_settings_that_cannot_be_used(model, export):
    with pytest.raises(UserError, match="one of text="):
        model.segment(RGB)
    with pytest.raises(UserError, match="one of text="):
        model.segment(RGB, text="a", question="b")
    with pytest.raises(UserError, match="threshold 1"):
        model.segment(RGB, text="a", threshold=1)
    with pytest.raises(UserError, match="device rocket"):
        unigeoseg.load(export, "rocket")
    with pytest.raises(UserError, match="no model at"):
        unigeoseg.load("no/such/model")
    grey = RGB[..., 0]
    assert (
        model.segment(grey, text="a").mask == model.segment(np.repeat(grey[..., None], 3, 2), text="a").mask
    ).all()


def test_a_run_folder_is_a_reference(export, tmp_path, model):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/export").symlink_to(export)
    found = unigeoseg.load(tmp_path / "run", "cpu")
    assert (found.segment(RGB, text="a").mask == model.segment(RGB, text="a").mask).all()


def test_no_ray_and_no_pipelines_for_a_folder_and_an_array(export, run_python):
    done = run_python(
        "import sys, numpy as np, unigeoseg\n"
        "assert 'torch' not in sys.modules\n"
        f"unigeoseg.load({export!r}, 'cpu').segment(np.zeros((9, 9, 3), np.uint8), text='a')\n"
        "print(sorted({'ray', 'mlflow', 'pipelines', 'fsspec'} & set(sys.modules)))\n"
        "sys.modules['pipelines'] = None\n"
        "try:\n    unigeoseg.load('models:/a@b')\nexcept ValueError as error:\n    print(error)\n"
    )
    assert done.returncode == 0, done.stderr
    found, refused = done.stdout.strip().splitlines()[-2:]
    assert found == "[]"
    assert "is no export's folder" in refused and "install the whole project" in refused


@pytest.mark.parametrize("south_up", [False, True])
def test_a_picture_with_a_place_gives_a_mask_with_one(export, tmp_path, south_up):
    at = rasterio.Affine(0.5, 0, 400000, 0, 0.5 if south_up else -0.5, 5600000)
    path = write(tmp_path / "x.tif", scene(50, 70), transform=at)
    told = predict_file(export, path, Question.ask(text="the block"), tmp_path / "out")
    assert told["files"][-1].endswith("mask.tif")
    with rasterio.open(tmp_path / "out/mask.tif") as mask, rasterio.open(path) as image:
        assert mask.crs == image.crs and sorted(mask.bounds) == sorted(image.bounds)
        assert mask.transform.e < 0  # north up, as the mask is
        seen = np.asarray(Image.open(tmp_path / "out/mask.png")) > 0
        assert (mask.read(1) == seen).all()


def test_a_hub_reference(export, run_python, tmp_path):
    """From a hub on loopback; from its cache alone once it was fetched."""
    files = {path.name: path.read_bytes() for path in Path(export).iterdir()}
    code = (
        "import numpy as np, unigeoseg\n"
        "model = unigeoseg.load('hf://org/name', 'cpu')\n"
        "print(model.segment(np.zeros((50, 70, 3), np.uint8), text='the block').score)\n"
    )
    local = unigeoseg.load(export, "cpu").segment(np.zeros((50, 70, 3), np.uint8), text="the block")
    with hub_server({"org/name": files}) as hub:
        known = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        done = run_python(code, **known)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.strip().splitlines()[-1]) == pytest.approx(local.score, abs=1e-6)
    again = run_python(code, **known, HF_HUB_OFFLINE="1")
    assert again.stdout == done.stdout, again.stderr
