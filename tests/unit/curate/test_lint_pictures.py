"""Lint sees pictures that show nothing, masks on nothing, twins under other names, and unseen text."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from pipelines.build import BuildConfig, build_store
from pipelines.curate.lint import lint_store
from pipelines.curate.lint_pictures import Seen, mask_faults, picture_faults, thumbnail, twins
from pipelines.curate.lint_text import character_faults, script_of

H, W = 96, 128


def scene(seed):
    """Fields and roofs: something that can be known again."""
    rng = np.random.default_rng(seed)
    pixels = np.kron(rng.integers(30, 220, (6, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    return np.clip(pixels + rng.integers(-8, 8, pixels.shape), 0, 255).astype(np.uint8)


def jpeg(pixels, quality):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(io.BytesIO(data.getvalue())))


def square(y=20, x=20, side=30):
    mask = np.zeros((H, W), np.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def seen(pixels, name, split="train", place=None):
    return Seen(name.encode(), split, place or name, name, thumbnail(pixels))


def test_the_same_picture_scaled_or_compressed_is_known_again_and_others_are_not():
    images = [seen(scene(n), f"s{n}") for n in range(300)]
    assert list(twins(images)) == [] and list(twins([])) == []
    small = np.asarray(Image.fromarray(scene(7)).resize((W // 2, H // 2), Image.Resampling.BOX))
    again = [
        seen(jpeg(scene(3), 40), "a", "val"),
        seen(small, "b"),
        seen(jpeg(scene(9), 90), "c", place="s9"),
    ]
    found = [(one.sample_id, other.sample_id) for one, other, _ in twins(images + again)]
    assert found == [("a", "s3"), ("b", "s7")]  # tiles of one scene may be alike
    flat = np.full((H, W, 3), 90, np.uint8)
    assert list(twins([seen(flat, "x"), seen(flat + np.uint8(1), "y")])) == []


def test_pictures_that_show_nothing():
    assert picture_faults(scene(0)) == []
    assert picture_faults(np.full((H, W, 3), 7, np.uint8))[0].startswith("one_colour")
    assert picture_faults((scene(0) // 20).astype(np.uint8))[0].startswith("nearly_black")


def test_masks_that_lie_on_nothing():
    pixels = scene(0)
    assert mask_faults(square(), pixels) == []
    assert mask_faults(np.ones((H, W), np.uint8), pixels)[0].startswith("whole_picture")
    assert mask_faults(square(side=1), pixels)[0].startswith("one_pixel")
    pixels[:, :64] = 0
    assert mask_faults(square(), pixels)[0].startswith("empty_pixels: 100% of the mask is pure black")
    assert mask_faults(square(x=50), pixels) == []


@pytest.mark.parametrize("text", ["a\x00b", "a\u202eb", "a\u200bb", "\ufeffa", "a\x1b[31m"])
def test_characters_that_nobody_sees(text):
    assert character_faults("fine", text)[0].startswith("control_character")


def test_scripts():
    assert character_faults("Die Straße, łódź, naïve — «ok»\n\tZeile", "道路の北") == []
    assert character_faults("the b\u043eat")[0].startswith("mixed_script")  # a Cyrillic o
    assert [script_of(t) for t in ("the road", "дорога у реки", "港口北侧", "12, 3", "été")] == [
        "LATIN", "CYRILLIC", "CJK", "", "LATIN",
    ]  # fmt: skip


def sample(root, name, pixels, mask, text="Where would one wait for a train?"):
    for part in ("images", "labels", "QAs"):
        (root / "val" / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(root / "val" / "images" / f"{name}.png")
    Image.fromarray(mask * np.uint8(255)).save(root / "val" / "labels" / f"{name}.png")
    (root / "val" / "QAs" / f"{name}.json").write_text(
        json.dumps({"questions": [text], "answer": ["There."]})
    )


def test_a_store_with_all_of_it(tmp_path):
    root = tmp_path / "in"
    for n in range(12):
        sample(root, f"good{n:02d}", scene(n), square())
    sample(root, "whole", scene(20), np.ones((H, W), np.uint8))
    sample(root, "pixel", scene(21), square(side=1))
    dark = scene(22)
    dark[:, :64] = 0
    sample(root, "empty", dark, square())
    sample(root, "flat", np.full((H, W, 3), 9, np.uint8), square())
    sample(root, "black", (scene(23) // 20).astype(np.uint8), square())
    sample(root, "twin", jpeg(scene(3), 80), square())
    sample(root, "hidden", scene(24), square(), "Where\u202e would one wait?")
    sample(root, "other", scene(25), square(), "Где ждут поезда?")
    config = BuildConfig(workers=0)
    build_store("earthreason", root, tmp_path / "out", config, progress=False, preview=False)
    found = {
        (e["sample_id"].split("/")[1], e["reason"].split(":")[0])
        for e in lint_store(str(tmp_path / "out"), progress=False)["errors"]
    }
    names = {key.rpartition("_")[2]: reason for key, reason in found}
    assert names == {
        "whole": "whole_picture",
        "pixel": "one_pixel",
        "empty": "empty_pixels",
        "flat": "one_colour",
        "black": "nearly_black",
        "twin": "similar_image",
        "hidden": "control_character",
        "other": "script",
    }
