"""Prediction on image files of all kinds, and the refusals."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from pipelines.evaluate.image_file import check_shape, read_image
from pipelines.evaluate.predict import Question, parse_numbers, predict_file
from unigeoseg.errors import UserError
from unigeoseg.samples.prompts import interactive_sentence


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    "question",
    [
        Question.ask(text="the block on the left"),
        Question.ask(text="Where would people be?", reasoning=True),
        Question.ask(box=(0.1, 0.2, 0.5, 0.6)),
        Question.ask(points=[(0.2, 0.3), (0.5, 0.5)]),
    ],
    ids=["text", "reasoning", "box", "points"],
)
def test_files_agree_with_the_json(export, picture, tmp_path, question):
    result = predict_file(export, picture, question, tmp_path / "out")
    assert json.loads((tmp_path / "out/prediction.json").read_text()) == result
    mask = cv2.imread(str(tmp_path / "out/mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (50, 70) and set(np.unique(mask)) <= {0, 255}
    rle = {"size": result["mask"]["size"], "counts": result["mask"]["counts"].encode()}
    assert np.array_equal(coco_mask.decode(rle) * 255, mask)
    assert cv2.imread(str(tmp_path / "out/overlay.png")).shape == (50, 70, 3)
    assert (0.5 < result["score"] <= 1) if mask.any() else result["score"] == 0
    assert len(result["files"]) == 3


def test_interactive_sentences_are_those_of_training():
    box = (0.1, 0.2, 0.5, 0.6)
    asked = Question.ask(box=box)
    assert asked.text == interactive_sentence(box) and asked.box == box and asked.task == "interactive"
    assert Question.ask(points=[(0.5, 0.25)]).text == interactive_sentence(points=[(0.5, 0.25)])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of --text"),
        ({"text": "a", "box": (0, 0, 1, 1)}, "one of --text"),
        ({"text": "  "}, "empty"),
        ({"box": (10, 20, 40, 50)}, "divide x by the image width"),
        ({"box": (0.5, 0.2, 0.4, 0.5)}, "x0 < x1"),
        ({"points": [(0.1, 0.1)] * 4}, "1 to 3"),
        ({"points": [(float("nan"), 0.1)]}, "outside"),
    ],
)
def test_bad_questions(given, message):
    with pytest.raises(UserError, match=message):
        Question.ask(**given)


def test_parse_numbers():
    assert parse_numbers("0.1, 0.2", 2, "--point") == (0.1, 0.2)
    for text in ("0.1", "0.1,b", "0.1,0.2,0.3"):
        with pytest.raises(UserError, match="give 2 numbers"):
            parse_numbers(text, 2, "--point")


def _save(path, array, mode=None):
    Image.fromarray(array, mode).save(path) if mode else Image.fromarray(array).save(path)
    return read_image(path)


def test_conversions_to_rgb(tmp_path):
    grey = np.arange(200, dtype=np.uint8).reshape(10, 20)
    assert np.array_equal(_save(tmp_path / "grey.png", grey), np.repeat(grey[..., None], 3, 2))

    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (200, 100, 50, 255)
    rgba[2:] = (200, 100, 50, 0)  # transparent: black
    found = _save(tmp_path / "rgba.png", rgba)
    assert found[0, 0].tolist() == [200, 100, 50] and not found[2:].any()

    wide = np.linspace(1000, 5000, 2500).reshape(50, 50).astype(np.uint16)
    for name in ("wide.png", "wide.tif"):  # from the 2nd to the 98th percentile, as in builds
        expected = np.clip(np.rint((wide - 1080.0) * 255 / 3840), 0, 255)
        assert np.abs(_save(tmp_path / name, wide)[..., 0] - expected).max() <= 1
    assert not _save(tmp_path / "flat.png", np.full((3, 3), 700, np.uint16)).any()

    cv2.imwrite(str(tmp_path / "colour16.png"), np.repeat(wide[..., None], 3, 2))
    assert (read_image(tmp_path / "colour16.png") == read_image(tmp_path / "wide.png")).all()

    palette = Image.fromarray(rgba[..., :3]).quantize(2)
    palette.save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png").shape == (4, 4, 3)


def test_unreadable_images(tmp_path, picture):
    with pytest.raises(UserError, match="does not exist"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(UserError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match="not an image"):
        read_image(tmp_path / "text.png")
    Image.open(picture).save(tmp_path / "full.jpg")
    for name in ("full.jpg", "x.png"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(data[: len(data) // 2])
        with pytest.raises(UserError, match="damaged or cut off"):
            read_image(tmp_path / f"cut-{name}")
    Image.fromarray(np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)).save(tmp_path / "f.tif")
    found = read_image(tmp_path / "f.tif")
    assert found[0].max() < 30 and found[9].min() > 220


@pytest.mark.parametrize("shape", [(500, 1), (1, 1), (3, 900), (900, 20)])
def test_thin_images_are_refused(shape, tmp_path):
    with pytest.raises(UserError, match="too thin"):
        check_shape(np.zeros((*shape, 3), np.uint8), 128, 4, tmp_path)
    check_shape(np.zeros((900, 40, 3), np.uint8), 128, 4, tmp_path)


def test_unwritable_output(export, picture, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to --out"):
        predict_file(export, picture, Question.ask(text="a"), tmp_path / "file")


def test_too_long_instruction(export, picture, tmp_path):
    with pytest.raises(UserError, match="too_long"):
        predict_file(export, picture, Question.ask(text="zq " * 400), tmp_path / "out")
