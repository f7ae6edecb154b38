"""What travels to the tasks of a build: each gets its own part, whatever the size of the whole."""

import json
import pickle
from contextlib import contextmanager

import numpy as np
import pytest
from ray import cloudpickle

from pipelines.build import build, runner
from pipelines.build.sources.registry import open_source
from pipelines.config.building import BuildConfig
from pipelines.triplets.base import TripletImage
from pipelines.triplets.layouts import open_layout
from pipelines.triplets.plain import as_plain, of_plain
from pipelines.triplets.truth import Segments
from tests.release_layouts import LAYOUTS, refsegrs


def folder(root, images):
    refsegrs(root, images)
    return root


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_source_of_ready_samples_carries_none_of_them(name, tmp_path):
    LAYOUTS[name](tmp_path)
    source = open_source(name, tmp_path, BuildConfig())
    items = list(source.items())
    alone = pickle.loads(pickle.dumps(source))
    for item in items:
        assert item.detail["ready"]["file"].encode() not in pickle.dumps(alone)
        found, wanted = alone.read(item), source.read(item)
        assert [t.instruction for t in found.triplets] == [t.instruction for t in wanted.triplets]
        np.testing.assert_array_equal(found.triplets[0].mask, wanted.triplets[0].mask)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_an_image_is_the_same_after_a_way_through_json(name, tmp_path):
    LAYOUTS[name](tmp_path)
    source = open_layout(str(tmp_path), name)
    for split in source.splits():
        for image in source.images(split):
            assert of_plain(json.loads(json.dumps(as_plain(image)))) == image


def test_what_a_pickle_may_hold_travels_or_is_no_mask(tmp_path):
    LAYOUTS["sior"](tmp_path)
    (image, *_) = open_layout(str(tmp_path), "sior").images("test")

    def sent(segments):
        (first, *_) = image.triplets
        changed = TripletImage("k", "f", "s", (type(first)(first.task, 0, Segments(segments)),))
        return of_plain(json.loads(json.dumps(as_plain(changed)))).triplets[0].truth.segments

    assert sent({"size": np.asarray([2, 3]), "counts": [np.int64(6)]}) == {"size": [2, 3], "counts": [6]}
    assert sent({"size": [2, 3], "counts": b"06"}) == {"size": [2, 3], "counts": None}
    assert sent(b"06") is None


def test_the_parts_of_a_round_alone_are_made_at_once():
    taken, made = [], []

    def numbers():
        for number in range(10):
            taken.append(number)
            yield number

    def part(number):
        made.append(number)
        return number * number

    found = runner.rounds(numbers(), part, 4)
    for ends, size in ((4, 4), (8, 4), (10, 2)):
        rows = next(found)
        assert len(taken) == len(made) == ends and len(rows) == size
        assert [(r["number"], pickle.loads(r["part"])) for r in rows] == [(n, n * n) for n in made[-size:]]
    assert next(found, None) is None and not list(runner.rounds([], None, 4))


def sizes(root, out, monkeypatch):
    """Bytes of each step's work, and the most bytes of one of its parts."""
    found = []

    @contextmanager
    def watched(workers):
        def run(work, numbers, part=None):
            numbers = list(numbers)
            parts = [len(pickle.dumps(n if part is None else part(n))) for n in numbers]
            found.append((len(cloudpickle.dumps(work)), max(parts)))
            return runner._here(work, numbers, part)

        yield run

    monkeypatch.setattr(build, "open_runner", watched)
    config = BuildConfig(workers=0, block_images=2, shard_bytes=20_000)
    build.build_store("refsegrs", root, out, config, progress=False, preview=False)
    return found


def test_no_step_of_a_build_sends_the_whole_to_each_task(tmp_path, monkeypatch):
    small = sizes(folder(tmp_path / "a", 4), tmp_path / "s" / "a", monkeypatch)
    large = sizes(folder(tmp_path / "b", 40), tmp_path / "s" / "b", monkeypatch)
    assert len(small) == len(large) >= 3
    for few, many in zip(small, large, strict=True):
        assert many[0] <= few[0] + 64 and many[1] <= few[1] + 64, (few, many)
