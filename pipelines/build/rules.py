"""The rule filter (paper, section 8): which regions may become samples of which task."""

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from pipelines.config.building import RuleConfig
from pipelines.labels.regions import Region, isolated


@dataclass(frozen=True)
class Selection:
    """Places of regions in the tile's list, ascending.

    Attributes:
        sized: pass the area rule; these become interactive samples.
        drawn: pass every rule and were drawn; these become referring and reasoning samples.
        dropped: count by reason of what left ``sized`` on the way to ``drawn``.
        too_small, too_large: what the area rule left out.
    """

    sized: list[int]
    drawn: list[int]
    dropped: Counter[str]
    too_small: int
    too_large: int


def select(
    regions: list[Region], height: int, width: int, rules: RuleConfig, rng: np.random.Generator
) -> Selection:
    """Applies area, crowding, isolation and the draw per category, in this order.

    Crowding and isolation count every region of the category in the tile, also those outside the area limits.
    """
    tile = height * width
    areas = [r.area for r in regions]
    small = [i for i, a in enumerate(areas) if a < rules.min_area * tile]
    large = [i for i, a in enumerate(areas) if a > rules.max_area * tile]
    out = set(small) | set(large)
    sized = [i for i in range(len(regions)) if i not in out]
    by_category: dict[int, list[int]] = defaultdict(list)
    for i, region in enumerate(regions):
        by_category[region.category_id].append(i)
    dropped: Counter[str] = Counter()
    drawn: list[int] = []
    for category in sorted(by_category):
        members = by_category[category]
        candidates = [i for i in members if i not in out]
        if len(members) > rules.max_instances:
            dropped["crowded_category"] += len(candidates)
            continue
        apart = [
            i
            for i in candidates
            if isolated(regions[i], [regions[j] for j in members if j != i], rules.isolation_px)
        ]
        dropped["not_isolated"] += len(candidates) - len(apart)
        if len(apart) > rules.per_category:
            dropped["not_drawn"] += len(apart) - rules.per_category
            apart = sorted(int(i) for i in rng.choice(apart, rules.per_category, replace=False))
        drawn.extend(apart)
    return Selection(sized, sorted(drawn), dropped, len(small), len(large))
