"""Image-major plans: the guarantees of the plan, stated for images, and the quotas over instructions."""

import itertools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.plan.plan import Plan
from pipelines.plan.schedule import make_curve
from pipelines.plan.units import UnitTable
from unigeoseg.schedules.pts import SCALE, Schedule


@dataclass
class Index:
    """Rows with tasks and image numbers."""

    tasks: np.ndarray
    images: np.ndarray
    store: str = "s"
    split: str = "train"
    fingerprint: str = "f"

    def counts(self):
        return tuple(int(n) for n in np.bincount(self.tasks, minlength=3))


@st.composite
def indices(draw):
    """Images with zero to six samples of each task, at least one of each altogether."""
    per_image = draw(st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=25))
    per_image.append((1, 1, 1))
    tasks = [t for image in per_image for t in range(3) for _ in range(image[t])]
    images = [i for i, image in enumerate(per_image) for t in range(3) for _ in range(image[t])]
    return Index(np.array(tasks, np.int8), np.array(images, np.int64))


@given(
    index=indices(),
    per_image=st.integers(1, 4),
    kind=st.sampled_from(("linear", "cosine", "constant")),
    seed=st.integers(0, 9),
)
@settings(max_examples=50, deadline=None)
def test_guarantees(index, per_image, kind, seed):
    units = UnitTable.build(index, per_image)
    length = 8 * 60
    curve = make_curve(Schedule(index.counts(), kind), length, units, index)
    plan = Plan(index, units, curve, seed, 8, 60)
    batch = plan.positions(0, length)
    # Positions: every prefix is within 3/4 of its quota, over units.
    drawn = np.cumsum(batch.tasks[:, None] == np.arange(3), axis=0)
    assert (4 * np.abs(drawn * SCALE - np.cumsum(curve.window(0, length), axis=0)) <= 3 * SCALE).all()
    for task in range(3):
        own = [u for t, u in zip(batch.tasks, batch.units, strict=True) if t == task]
        count, total = units.count(task), units.samples(task)
        sizes = np.cumsum([0, *map(len, own)])
        for begin in range(0, len(own), count):
            rows = [r for unit in own[begin : begin + count] for r in unit]
            assert len(set(rows)) == len(rows)  # nothing twice within a pass
        for unit in own:
            assert 1 <= len(unit) <= per_image
            assert len(set(index.images[list(unit)])) == 1
            assert set(index.tasks[list(unit)]) == {task}
        # Instructions: exact at every end of a pass; between, units that are larger or smaller than the mean
        # put them off by less than a pass of such differences.
        mean = Fraction(total, count)
        for n in range(len(own) + 1):
            off = abs(int(sizes[n]) - n * mean)
            assert off <= min(n % count, count - n % count) * max(mean - 1, per_image - mean)
        assert all(int(sizes[n]) == n // count * total for n in range(0, len(own) + 1, count))


@given(index=indices(), per_image=st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_units_are_few_and_even(index, per_image):
    units = UnitTable.build(index, per_image)
    starts = np.arange(len(units.rows) + 1) if units.starts is None else units.starts
    assert sorted(units.rows.tolist()) == list(range(len(index.tasks)))
    sizes = {}
    for begin, end in itertools.pairwise(starts):
        row = units.rows[begin]
        sizes.setdefault((index.images[row], index.tasks[row]), []).append(int(end - begin))
    for (image, task), found in sizes.items():
        total = int(((index.images == image) & (index.tasks == task)).sum())
        assert sum(found) == total
        assert len(found) == -(-total // per_image)
        assert max(found) - min(found) <= 1


def test_a_table_on_disk_is_the_same(tmp_path):
    tasks = np.random.default_rng(0).integers(0, 3, 5000).astype(np.int8)
    index = Index(tasks, np.arange(5000))
    here, there = UnitTable.build(index, 1), UnitTable.build(index, 1, tmp_path / "rows")
    assert (here.rows == there.rows).all()
    assert here.first == there.first
    assert (here.rows == np.argsort(tasks, kind="stable")).all()
    assert (tmp_path / "rows").stat().st_size == 4 * 5000
