"""Train, val and test by scene: what shows the same place stays together."""

from collections.abc import Iterable

from pipelines.build.config import SplitConfig
from pipelines.build.seeds import digest


def assign_splits(groups: Iterable[str], config: SplitConfig, seed: int) -> dict[str, str]:
    """The split of each group of scenes.

    A share above zero takes at least one group, as long as one stays for training.
    """
    ordered = sorted(set(groups), key=lambda g: (digest(seed, "split", g), g))
    free = len(ordered) - 1
    result, start = {}, 0
    for name, share in (("val", config.val), ("test", config.test)):
        count = min(max(round(share * len(ordered)), 1) if share > 0 else 0, free - start)
        for group in ordered[start : start + count]:
            result[group] = name
        start += count
    return {group: result.get(group, "train") for group in ordered}
