"""Augmentation: drawn from (seed, position) alone, true to the texts, and nothing where it is off."""

import numpy as np
import pytest
import yaml

from pipelines.config import Config
from pipelines.config.data import AugmentConfig
from pipelines.store.index import StoreIndex
from pipelines.stream import augment as module
from pipelines.stream.augment import Augment, Draw
from pipelines.stream.plain import open_plain_stream
from pipelines.stream.tokenizer import prepare_tokenizer
from tests.tiny_store import write_store
from tests.train_runs import tiny_values
from tests.unit.test_cli_errors import check, here
from unigeoseg.samples.prompts import interactive_sentence
from unigeoseg.samples.sample import ImageGroup, Sample

EVERYTHING = {
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.4,
    "blur": 1.0,
    "scale": [0.7, 1.6],
    "flips": True,
    "turns": True,
}


def words(i, data, record):
    """Interactive samples get the sentence of their box, every other referring one a place."""
    for n, sample in enumerate(record["samples"]):
        if sample["task"] == "interactive":
            sample["instruction"] = interactive_sentence(box=sample["box"])
        else:
            sample["instruction"] = "the grey block" if n % 2 else "the grey block on the left"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("augment")
    store = str(write_store(folder / "store", damage=words, size=64))
    values = tiny_values(**{"train.global_batch": 8, "train.steps": 12, "data.block_positions": 6})
    index = StoreIndex.open(store)
    prepare_tokenizer(Config.model_validate(values), index, folder / "tokenizer")
    return store, str(folder / "tokenizer"), values


def stream(place, world=1, start=0, augment=EVERYTHING, seed=0, micro=None, steps=12, **data):
    """All batches by (step, position of the first), of all workers."""
    store, tokenizer, values = place
    values = values | {"seed": seed, "data": values["data"] | data | {"augment": augment}}
    values["train"] = values["train"] | {"micro_batch": micro, "steps": steps}
    values["scale"] = {"workers": world}
    config = Config.model_validate(values)
    found = []
    for rank in range(world):
        with open_plain_stream(config, store, tokenizer, rank, world, start) as items:
            found += [(item.step, item.batch) for item in items]
    return found


def by_position(batches):
    """Of each position: pixels, masks, coordinates, ids and tokens."""
    found = {}
    for _, batch in batches:
        for i, position in enumerate(batch.positions):
            mine = np.flatnonzero(batch.image_index.numpy() == i)
            texts = [batch.input_ids[row][batch.attention_mask[row]].tolist() for row in mine]
            found[position] = (
                batch.images[i].numpy().tobytes(),
                batch.masks[mine].numpy().tobytes(),
                batch.coordinates[mine].numpy().tobytes(),
                [batch.sample_ids[row] for row in mine],
                texts,
            )
    return found


@pytest.mark.parametrize("per_image", [1, 3])
def test_workers_blocks_and_resuming_change_nothing(place, per_image):
    whole = by_position(stream(place, instructions_per_image=per_image))
    assert len(whole) == 96
    for world, micro in ((2, 2), (4, 1)):
        assert by_position(stream(place, world, micro=micro, instructions_per_image=per_image)) == whole
    later = by_position(stream(place, 2, start=7, instructions_per_image=per_image))
    assert later == {position: seen for position, seen in whole.items() if position >= 56}
    plain = by_position(stream(place, augment={}, instructions_per_image=per_image))
    assert [seen[3] for seen in plain.values()] == [whole[p][3] for p in plain], "the order stays"
    assert sum(seen[0] != whole[p][0] for p, seen in plain.items()) > 90
    other = by_position(stream(place, seed=1, instructions_per_image=per_image))
    assert other != whole


def test_the_same_sample_differs_from_place_to_place(place):
    seen = {}
    for pixels, _, _, names, _ in by_position(stream(place, steps=60)).values():
        seen.setdefault(names[0], []).append(pixels)
    again = [pixels for pixels in seen.values() if len(pixels) > 1]
    assert again and all(len(set(pixels)) == len(pixels) for pixels in again)


def test_off_is_off(place, monkeypatch):
    assert not Config.model_validate(tiny_values()).data.augment.active
    monkeypatch.setattr(module, "derive_key", lambda *parts: pytest.fail("something was drawn"))
    assert by_position(stream(place, augment={})) == by_position(stream(place, augment={"scale": [1, 1]}))


def group(task="interactive", text=None, answer="", shape=(60, 90), seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    mask = np.zeros(shape, np.uint8)
    top, left = int(rng.integers(0, shape[0] - 12)), int(rng.integers(0, shape[1] - 15))
    mask[top : top + 12, left : left + 15] = 1
    box = None
    if task == "interactive":
        box = left / shape[1], top / shape[0], (left + 15) / shape[1], (top + 12) / shape[0]
        text = interactive_sentence(box=box)
    return ImageGroup(image, (Sample("a", task, text, mask, answer=answer, box=box),))


def seen_at(settings, made, positions=range(200)):
    augment = Augment(AugmentConfig(**settings), 0)
    return [augment(made, position) for position in positions]


def test_every_region_is_kept_and_boxes_stay_tight():
    for seed in range(10):
        made = group(seed=seed)
        for seen in seen_at(EVERYTHING, made, range(40)):
            (sample,) = seen.samples
            assert sample.mask.sum() == 180 and sample.mask.shape == seen.image.shape[:2]
            ys, xs = sample.mask.nonzero()
            rows, columns = sample.mask.shape
            tight = xs.min() / columns, ys.min() / rows, (xs.max() + 1) / columns, (ys.max() + 1) / rows
            assert sample.box == pytest.approx(tight, abs=1e-9)


@pytest.mark.parametrize(
    ("task", "text", "turned", "cropped", "shrunk"),
    [
        ("interactive", None, True, True, True),
        ("referring", "the grey block", False, True, True),
        ("referring", "the block on the left", False, False, True),
        ("reasoning", "the block [0.1,0.2]", False, False, False),
    ],
)
def test_texts_decide_what_happens(task, text, turned, cropped, shrunk):
    made = group(task, text)
    shapes = [s.image.shape[:2] for s in seen_at({"scale": [0.7, 1.6]}, made)]
    assert any(h > 60 and w > 90 for h, w in shapes) is shrunk
    assert any(h < 60 and w < 90 for h, w in shapes) is cropped
    assert all(abs(h / w - 60 / 90) < 0.03 for h, w in shapes)
    turns = {s.image.tobytes() + bytes(s.image.shape) for s in seen_at({"flips": True, "turns": True}, made)}
    assert len(turns) == (8 if turned else 1)
    flips = {s.image.tobytes() for s in seen_at({"flips": True}, made)}
    assert len(flips) == (4 if turned else 1)
    if not turned:
        assert all(s.samples == made.samples for s in seen_at(EVERYTHING | {"scale": [1, 1]}, made, range(5)))


def test_crops_lie_everywhere_and_grow_where_the_region_is_large():
    made = group("referring", "the block")
    parts = seen_at({"scale": [1, 2]}, made, range(400))
    places = {tuple(np.argwhere(s.samples[0].mask)[0]) for s in parts}
    assert len(places) > 60
    whole = ImageGroup(made.image, (Sample("a", "referring", "the field", np.ones((60, 90), np.uint8)),))
    assert all(s.image.shape == (60, 90, 3) for s in seen_at({"scale": [1, 2]}, whole, range(20)))
    nothing = ImageGroup(made.image, (Sample("a", "reasoning", "the lake", np.zeros((60, 90), np.uint8)),))
    assert any(s.image.shape[0] < 40 for s in seen_at({"scale": [1, 2]}, nothing, range(50)))


def test_light_against_arithmetic_of_its_own():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    draw = Draw(0, 5, 0)
    bright = Augment(AugmentConfig(brightness=0.4), 0).pixels(image, draw)
    factor = draw.between("brightness", 0.6, 1.4)
    np.testing.assert_allclose(bright, np.clip(image * factor, 0, 255), atol=0.5 + 1e-9)
    contrast = Augment(AugmentConfig(contrast=0.4), 0).pixels(image, draw)
    grey = image @ [0.299, 0.587, 0.114]
    factor = draw.between("contrast", 0.6, 1.4)
    expected = np.clip(grey.mean() + (image - grey.mean()) * factor, 0, 255)
    np.testing.assert_allclose(contrast, expected, atol=0.6)
    dull = Augment(AugmentConfig(saturation=0.4), 0).pixels(image, draw)
    factor = draw.between("saturation", 0.6, 1.4)
    expected = np.clip(grey[..., None] + (image - grey[..., None]) * factor, 0, 255)
    np.testing.assert_allclose(dull, expected, atol=1.0)
    same = Augment(AugmentConfig(), 0).pixels(image, draw)
    assert (same == image).all()
    blurred = [Augment(AugmentConfig(blur=2), 0).pixels(image, Draw(0, p, 0)).std() for p in range(20)]
    assert min(blurred) < 0.5 * image.std() and max(blurred) > 0.9 * image.std()


def test_draws_are_uniform_and_pinned():
    draws = [Draw(3, position, 0) for position in range(4000)]
    values = np.array([draw.between("scale", 0.5, 1.5) for draw in draws])
    assert values.min() >= 0.5 and values.max() < 1.5 and abs(values.mean() - 1.0) < 0.02
    counts = np.bincount([draw.whole("turns", 0, 3) for draw in draws], minlength=4)
    assert counts.min() > 900 and len(counts) == 4
    # The same on every platform and in every version.
    assert [Draw(0, p, 0).whole("turns", 0, 3) for p in range(12)] == [1, 3, 2, 1, 0, 2, 2, 1, 1, 3, 0, 2]
    assert Draw(0, 1, 0).between("scale", 0, 1) != Draw(0, 1, 1).between("scale", 0, 1)


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("scale=[1.2,1.5]", "from 0.25 to 1"),
        ("scale=[0.8,9]", "such as [0.8, 1.5]"),
        ("brightness=0.9", "0.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, capfd, setting, part):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_values()))
    store = write_store(tmp_path / "store", images=6)
    arguments = ("--store", str(store), "--preset", str(tmp_path / "tiny.yaml"), "--dry-run")
    check(here(capfd, "train", *arguments, "--set", f"data.augment.{setting}"), 2, "data.augment", part)
