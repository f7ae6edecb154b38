"""What the labels of a tile say of a category: all its pixels, and whether it is surely not there."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipelines.build.instruct.kinds import confused
from pipelines.build.sources.base import SourceImage
from pipelines.labels.taxonomy import taxonomy


class Labelled:
    """The labels of a tile before anything is left out of them as noise or by the rules.

    Args:
        part: the tile as its source cut it.
    """

    def __init__(self, part: SourceImage) -> None:
        self._part = part

    @cached_property
    def present(self) -> frozenset[int]:
        """The categories that have a pixel here."""
        part = self._part
        if part.regions is not None:
            return frozenset(region.category_id for region in part.regions)
        numbers = (np.flatnonzero(np.bincount(part.labels.ravel())[1:]) + 1).tolist()
        if part.instances is not None:
            numbers = [part.instances[number] for number in numbers]
        return frozenset(numbers)

    def pixels(self, category: int) -> NDArray[np.bool_]:
        """All pixels labelled as the category, also in what is too small to be a region; bool ``[H, W]``."""
        part = self._part
        if part.regions is not None:
            found = np.zeros(part.labels.shape, bool)
            for region in part.regions:
                if region.category_id == category:
                    found[region.window] |= region.crop
            return found
        if part.instances is None:
            return np.asarray(part.labels == category)
        numbers = [number for number, kind in part.instances.items() if kind == category]
        return np.asarray(np.isin(part.labels, numbers))

    @property
    def possible(self) -> frozenset[int]:
        """The categories that are or may be here."""
        return self.present | self._part.partial | self._part.reaching

    def whole(self) -> list[int]:
        """The categories whose pixels are all that one would call so, ascending.

        They are there, no object of them was left out, and nothing that they may be confused with is there.
        """
        whole = sorted(self.present - self._part.partial)
        return [category for category in whole if not confused(category, {*self.possible} - {category})]

    def absent(self, most_unlabelled: float) -> list[int]:
        """The categories that are surely not there, ascending.

        Such a category is one that the labels would show: the source has it, no pixel of it is in the tile,
        no object of it reaches the tile or was left out, and nothing it may be confused with is or may be
        there (another name for it, a kind or part of it, or what it is a kind or part of).

        Args:
            most_unlabelled: largest share of the tile without any label; where more is, nothing is sure.
        """
        part = self._part
        if part.unlabelled > most_unlabelled * part.labels.size:
            return []
        there = {*self.possible}
        free = (category for category in sorted(part.vocabulary - there) if not confused(category, there))
        by_name = {taxonomy()[category].name: category for category in free}  # some names have two ids
        return sorted(by_name.values())
