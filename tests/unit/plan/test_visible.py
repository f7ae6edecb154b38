"""Regions that are too small at the model's size: counted, left out of the plan, never drawn."""

import logging

import numpy as np
import pyarrow as pa
import pytest

from pipelines.config import Config
from pipelines.plan.plan import Plan
from pipelines.plan.visible import pixels_at, tell_vanishing, visible
from pipelines.store.index import StoreIndex
from tests.tiny_store import write_store
from unigeoseg.errors import UserError


def _config(**data):
    values = {"name": "t", "train": {"steps": 20, "global_batch": 8}, "model": {"image_size": 64}}
    return Config.model_validate(values | {"data": data})


@pytest.fixture
def index(tmp_path):
    return StoreIndex.open(str(write_store(tmp_path, images=12, size=96)))


def test_pixels_follow_the_letterbox():
    table = pa.table({"mask_area": [40, 0, 900], "height": [100, 100, 30], "width": [200, 100, 30]})
    np.testing.assert_allclose(pixels_at(table, 50), [40 / 16, 0, 900 * (50 / 30) ** 2])


@pytest.mark.parametrize("per_image", [1, 4])
def test_small_regions_are_never_drawn_and_all_others_are(index, per_image):
    area = pixels_at(index.table, 64)
    least = float(np.median(area))
    config = _config(min_pixels=least, instructions_per_image=per_image)
    plan = Plan.from_config(index, config)
    drawn = {row for step in range(plan.steps) for row in plan.batch(step).rows.tolist()}
    kept = set(np.flatnonzero((area >= least) | (area == 0)).tolist())
    assert drawn <= kept
    assert sum(plan.units.samples(t) for t in range(3)) == len(kept)
    everything = Plan.from_config(index, _config(instructions_per_image=per_image))
    assert plan.fingerprint != everything.fingerprint


def test_nothing_changes_without_a_limit(index):
    assert visible(index, _config()) is index


def test_what_cannot_be_told_or_leaves_nothing_is_refused(index):
    with pytest.raises(UserError, match="none of 66 regions"):
        visible(index, _config(min_pixels=1e6))
    poor = StoreIndex(index.store, index.split, index.table.drop_columns(["mask_area"]), index.card)
    with pytest.raises(UserError, match="lacks mask_area"):
        visible(poor, _config(min_pixels=1))
    assert tell_vanishing(poor, _config()) == 0


def test_vanishing_regions_are_told(index, caplog):
    config = Config.model_validate(_config().plain() | {"model": {"image_size": 3}})
    area = pixels_at(index.table, 3)
    with caplog.at_level(logging.WARNING):
        assert tell_vanishing(index, config) == int(((area > 0) & (area < 1)).sum()) > 0
    assert "data.min_pixels=1 leaves them out" in caplog.text
