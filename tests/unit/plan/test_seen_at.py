"""The resolution of training pictures at the model's size, by columns and by hand."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.config import Config
from pipelines.plan.seen_at import seen_at
from pipelines.store.index import StoreIndex
from tests.train_runs import tiny_values

SIZES = {"a": (256, 256), "b": (100, 512)}


def config_of(**changes):
    return Config.model_validate(tiny_values(**changes))


def index_of(number, scenes):
    rng = np.random.default_rng(0)
    source = [("a", "b")[k] for k in rng.integers(0, 2, number)]
    table = pa.table(
        {
            "height": pa.array([SIZES[name][0] for name in source], pa.int32()),
            "width": pa.array([SIZES[name][1] for name in source], pa.int32()),
            "source": source,
        }
    )
    return StoreIndex("store", "train", table, {"scene_of": scenes}), source


def test_pixels_and_metres_of_the_models_pixel():
    gsd = {"a": [0.3, 0.5], "b": [0.1, 0.1]}
    config = config_of(**{"model.image_size": 64})
    index, source = index_of(301, {name: {"is": "x", "gsd": value} for name, value in gsd.items()})
    found = seen_at(index, config)
    shrink = [max(SIZES[name]) / 64 for name in source]
    assert found["shrink"] == pytest.approx(np.quantile(shrink, [0.05, 0.5, 0.95]))
    least = np.quantile([s * gsd[name][0] for s, name in zip(shrink, source, strict=True)], 0.05)
    most = np.quantile([s * gsd[name][1] for s, name in zip(shrink, source, strict=True)], 0.95)
    assert found["gsd"] == pytest.approx([least, most], rel=1e-3)


@pytest.mark.parametrize("scenes", [{}, {"a": {"gsd": [1, 1]}}, {"a": {"gsd": [1, 1]}, "b": {"gsd": None}}])
def test_metres_that_one_source_does_not_tell_are_not_told(scenes):
    found = seen_at(index_of(50, scenes)[0], config_of(**{"model.image_size": 64}))
    assert found["gsd"] is None and found["shrink"][2] == 8


def test_an_index_without_sizes_tells_nothing():
    index = StoreIndex("store", "train", pa.table({"source": ["a"]}), {})
    assert seen_at(index, config_of()) == {}
