from collections import Counter

import cv2
import numpy as np
import pytest

from pipelines.build.rules import select
from pipelines.config.building import RuleConfig
from pipelines.labels.regions import isolated, split_instances, split_semantic
from tests.unit.build import brute


def random_labels(seed, side=56):
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    for _ in range(int(rng.integers(6, 26))):
        x, y, w, h = rng.integers(0, side - 4), rng.integers(0, side - 4), *rng.integers(2, 15, 2)
        if rng.random() < 0.5:
            cv2.ellipse(
                labels,
                (int(x), int(y)),
                (int(w) // 2 + 1, int(h) // 2 + 1),
                0,
                0,
                360,
                int(rng.integers(0, 4)),
                -1,
            )
        else:
            labels[y : y + h, x : x + w] = rng.integers(0, 4)
    labels[rng.random(labels.shape) < 0.01] = 3
    return labels


@pytest.mark.parametrize("seed", range(12))
def test_components_are_those_of_a_flood_fill(seed):
    labels = random_labels(seed)
    regions, noise = split_semantic(labels, 4)
    expected = brute.components(labels)
    large = [c for c in expected if len(c[1]) >= 4]
    assert Counter((r.category_id, brute.pixels(r)) for r in regions) == Counter(large)
    assert noise == len(expected) - len(large)
    for region in regions:
        assert region.crop.any(0)[[0, -1]].all() and region.crop.any(1)[[0, -1]].all()
        assert region.area == len(brute.pixels(region))


@pytest.mark.parametrize("seed", range(12))
def test_isolation_is_euclidean_distance(seed):
    regions, _ = split_semantic(random_labels(seed), 4)
    rng = np.random.default_rng(seed)
    for i in rng.choice(len(regions), min(len(regions), 5), replace=False):
        others = [r for r in regions if r is not regions[i]]
        least = min((brute.gap(brute.pixels(regions[i]), brute.pixels(o)) for o in others), default=np.inf)
        for radius in (1, 3, 6, 15):
            assert isolated(regions[i], others, radius) == (least > radius)


@pytest.mark.parametrize("seed", range(20))
def test_selection_follows_the_rules(seed):
    labels = random_labels(seed)
    rules = RuleConfig(min_area=0.008, max_area=0.3, max_instances=5, isolation_px=4)
    regions, _ = split_semantic(labels, 4)
    chosen = select(regions, *labels.shape, rules, np.random.default_rng(seed))
    sized = [i for i, r in enumerate(regions) if 0.008 * labels.size <= r.area <= 0.3 * labels.size]
    assert chosen.sized == sized
    allowed = []
    for i in sized:
        same = [r for r in regions if r.category_id == regions[i].category_id]
        others = [r for r in same if r is not regions[i]]
        apart = all(brute.gap(brute.pixels(regions[i]), brute.pixels(o)) > 4 for o in others)
        if len(same) <= 5 and apart:
            allowed.append(i)
    assert set(chosen.drawn) <= set(allowed)
    have = Counter(regions[i].category_id for i in allowed)
    assert Counter(regions[i].category_id for i in chosen.drawn) == {c: min(n, 2) for c, n in have.items()}
    assert len(sized) - len(chosen.drawn) == sum(chosen.dropped.values())
    assert chosen.too_small + chosen.too_large + len(sized) == len(regions)
    again = select(regions, *labels.shape, rules, np.random.default_rng(seed))
    assert again.drawn == chosen.drawn


def test_instances_stay_whole_and_touching_ones_stay_apart():
    labels = np.zeros((40, 40), np.int32)
    labels[2:12, 2:12], labels[2:12, 12:22] = 1, 2
    labels[20:30, 2:6], labels[20:30, 30:36] = 3, 3
    regions, noise = split_instances(labels, {1: 25, 2: 25, 3: 12}, {1: "red"}, 4)
    assert noise == 0
    assert [(r.category_id, r.area, r.colour) for r in regions] == [
        (12, 100, None),
        (25, 100, "red"),
        (25, 100, None),
    ]
    assert not isolated(regions[1], [regions[2]], 15)
