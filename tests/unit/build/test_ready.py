"""Benchmarks become stores as they are: samples, texts and masks that an evaluation reads from the folder."""

import numpy as np
import pytest

from pipelines.build.build import build_store
from pipelines.config.building import BuildConfig
from pipelines.store.reader import StoreReader
from pipelines.store.scan import open_all_splits
from pipelines.triplets.layouts import open_layout
from tests.release_layouts import LAYOUTS


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_store_holds_what_the_folder_holds(name, tmp_path):
    LAYOUTS[name](tmp_path / "root")
    config = BuildConfig(workers=0)
    build_store(name, tmp_path / "root", tmp_path / "store", config, progress=False, preview=False)
    source = open_layout(str(tmp_path / "root"), name)
    index = open_all_splits(str(tmp_path / "store"))
    where = dict(zip(index.table["sample_id"].to_pylist(), index.table["split"].to_pylist(), strict=True))
    everything = {one.sample_id: one for one in StoreReader(index).load(range(len(index)))}
    assert not [one for one in everything.values() if one.sample is None]
    by_text = {(one.sample.instruction, one.sample_id.split("/")[1]): one for one in everything.values()}
    held_out = {image.file for split in ("test", "val") for image in _images(source, split)}
    for split in source.splits():
        for image in source.images(split):
            pixels = source.read_image(image)
            for triplet in image.triplets:
                wanted = source.read_sample(image, triplet, *pixels.shape[:2])
                if split == "train" and image.file in held_out:  # its picture stays where it is held out
                    found = by_text[wanted.instruction, image.key]
                    assert where[found.sample_id] != "train"
                else:
                    found = everything[wanted.sample_id]
                    assert where[found.sample_id] == split
                np.testing.assert_array_equal(found.image, pixels)
                np.testing.assert_array_equal(found.sample.mask, wanted.mask)
                assert found.sample.instruction == wanted.instruction
                assert (found.sample.task, found.sample.category_id) == (wanted.task, wanted.category_id)
                assert found.sample.box == wanted.box and found.sample.points == wanted.points


def _images(source, split):
    return source.images(split) if split in source.splits() else []
