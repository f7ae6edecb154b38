"""Train, val and test by scene: what shows the same place stays together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.build.seeds import digest
from pipelines.config.building import SplitConfig

#: Above every hash.
_ABOVE = 2**64


@dataclass(frozen=True)
class Splits:
    """Which split a group of scenes is in: groups in the order of a seeded hash, cut at two places.

    Attributes:
        seed: of the hash.
        val_below: groups whose hash is smaller are validation (2**64: all of them),
        test_below: else those whose hash is smaller are test, all others train.
        own: the source's own split goes first.
    """

    seed: int
    val_below: int
    test_below: int
    own: bool = False

    def of(self, group: str, own: str | None = None) -> str:
        """The split of a group; ``own`` is what the source says."""
        if self.own and own is not None:
            return own
        place = group_digest(self.seed, group)
        return "val" if place < self.val_below else "test" if place < self.test_below else "train"


def group_digest(seed: int, group: str) -> int:
    """A group's place in the order of groups, 64 bits."""
    return digest(seed, "split", group)


def cut_splits(digests: NDArray[np.uint64], config: SplitConfig, seed: int) -> Splits:
    """Where to cut, for the hashes of all groups (repeated ones count once).

    A share above zero takes at least one group, as long as one stays for training. Where the shares leave
    nothing for training (they make 1), no group is left for it.
    """
    ordered = np.unique(digests)
    total = len(ordered)
    training = config.val + config.test < 1 - 1e-9
    free = total - 1 if training else total
    start, ends = 0, []
    for share in (config.val, config.test):
        start += min(max(round(share * total), 1) if share > 0 else 0, max(free - start, 0))
        ends.append(start)
    if not training:  # rounding leaves no group over
        ends = [total if config.test == 0 else ends[0], total]
    bounds = [int(ordered[end]) if end < total else _ABOVE if total else 0 for end in ends]
    return Splits(seed, bounds[0], bounds[1], bool(config.own))
