"""Benchmarks become stores as they are: samples, texts and masks that an evaluation reads from the folder."""

import numpy as np
import pytest

from pipelines.build.build import build_store
from pipelines.build.config import BuildConfig
from pipelines.store.index import StoreIndex
from pipelines.store.reader import StoreReader
from pipelines.triplets.layouts import open_layout
from tests.release_layouts import LAYOUTS


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_store_holds_what_the_folder_holds(name, tmp_path):
    LAYOUTS[name](tmp_path / "root")
    config = BuildConfig(workers=0, split={"own": True})
    build_store(name, tmp_path / "root", tmp_path / "store", config, progress=False, preview=False)
    source = open_layout(str(tmp_path / "root"), name)
    for split in source.splits():
        index = StoreIndex.open(
            str(tmp_path / "store"), split if split in ("train", "val", "test") else "train"
        )
        stored = {one.sample_id: one for one in StoreReader(index).load(range(len(index)))}
        assert not [one for one in stored.values() if one.sample is None]
        for image in source.images(split):
            pixels = source.read_image(image)
            for triplet in image.triplets:
                wanted = source.read_sample(image, triplet, *pixels.shape[:2])
                found = (
                    stored.get(wanted.sample_id)
                    or stored[wanted.sample_id.replace(f"/{image.key}/", f"/{image.key}_{split}/")]
                )
                np.testing.assert_array_equal(found.image, pixels)
                np.testing.assert_array_equal(found.sample.mask, wanted.mask)
                assert found.sample.instruction == wanted.instruction
                assert (found.sample.task, found.sample.category_id) == (wanted.task, wanted.category_id)
                assert found.sample.box == wanted.box and found.sample.points == wanted.points
