"""Another view of a picture with its samples: flipped, turned, a part of it, or all of it on a larger ground.

Masks, boxes, points and the coordinates that an instruction spells out move with the pixels.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from unigeoseg.samples.place_words import speaks_of_place, speaks_of_surroundings
from unigeoseg.samples.prompts import (
    count_coordinates,
    parse_coordinates,
    without_coordinates,
    write_coordinates,
)
from unigeoseg.samples.sample import ImageGroup, Sample
from unigeoseg.tasks import INTERACTIVE

Point = tuple[float, float]
#: Rows and columns, each from the first up to one past the last.
Extent = tuple[int, int, int, int]
#: A written coordinate may differ by this from the one it stands for: it is rounded to three decimals.
_WRITTEN = 1e-3


#: Whether it is flipped, and by how many quarters it is then turned; without the way that changes nothing.
OTHER_TURNS: Final = tuple((flip, turns) for flip in (False, True) for turns in range(4))[1:]


class Freedom(IntEnum):
    """How the scale of a picture may change so that its samples stay true; each includes the one before."""

    NONE = 0
    #: Shown smaller, whole, in the middle of a larger ground: nothing within the picture changes.
    SHRINK = 1
    #: A part of it that holds the region and the prompt.
    CROP = 2


@dataclass(frozen=True)
class View:
    """How a picture of H x W pixels is looked at: first flipped, then turned, then through a window.

    Attributes:
        flip: left and right change places.
        turns: quarter turns against the clock, 0 to 3.
        window: rows and columns of the flipped and turned picture; beyond it everything is black.
    """

    flip: bool
    turns: int
    window: Extent

    def array(self, array: NDArray[Any]) -> NDArray[Any]:
        """An image ``[H, W, 3]`` or a mask ``[H, W]`` as it is seen; a copy."""
        seen = np.rot90(np.flip(array, 1) if self.flip else array, self.turns)
        height, width = seen.shape[:2]
        top, bottom, left, right = self.window
        inner = seen[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        beyond = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
        if not any(beyond):
            return np.ascontiguousarray(inner).copy()
        return cv2.copyMakeBorder(np.ascontiguousarray(inner), *beyond, cv2.BORDER_CONSTANT, value=0)

    def point(self, x: float, y: float, height: int, width: int) -> Point:
        """Coordinates in [0, 1] of the picture of ``height`` x ``width``, as such of the view."""
        if self.flip:
            x = 1.0 - x
        for _ in range(self.turns):
            x, y, height, width = y, 1.0 - x, width, height
        top, bottom, left, right = self.window
        x, y = (x * width - left) / (right - left), (y * height - top) / (bottom - top)
        return min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)

    def extent(self, extent: Extent, height: int, width: int) -> Extent:
        """Where a part of the picture of ``height`` x ``width`` lies once it is flipped and turned."""
        top, bottom, left, right = extent
        if self.flip:
            left, right = width - right, width - left
        for _ in range(self.turns):
            top, bottom, left, right = width - right, width - left, top, bottom
            height, width = width, height
        return top, bottom, left, right

    def group(self, group: ImageGroup) -> ImageGroup:
        """An image with its samples as they are seen, with texts that are true of them.

        Raises:
            ValueError: a sample has no such text, see :func:`retold`.
        """
        height, width = group.image.shape[:2]
        samples = tuple(self._sample(sample, height, width) for sample in group.samples)
        return ImageGroup(self.array(group.image), samples)

    def _sample(self, sample: Sample, height: int, width: int) -> Sample:
        other = retold(sample, self.flip, self.turns)
        if other is None:
            raise ValueError(f"{sample.sample_id} has no text for flip={self.flip}, turns={self.turns}")
        sample = other
        box, points = sample.box, sample.points
        if box is not None:
            (xa, ya), (xb, yb) = (self.point(*corner, height, width) for corner in (box[:2], box[2:]))
            box = min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)
        if points is not None:
            points = tuple(self.point(x, y, height, width) for x, y in points)
        return dataclasses.replace(
            sample,
            mask=None if sample.mask is None else self.array(sample.mask),
            box=box,
            points=points,
            instruction=write_coordinates(sample.instruction, box, points),
            views=(),
        )


def retold(sample: Sample, flip: bool, turns: int) -> Sample | None:
    """The sample with a text that is true of its flipped and turned picture; ``None`` where there is none.

    An interactive instruction is true of any picture that its coordinates follow, unless it also speaks of
    place. Others, and their answers, are true of another picture only where the store has their text for it.
    Pixels and coordinates stay as they are.
    """
    if not flip and not turns:
        return sample
    if sample.task == INTERACTIVE:
        words = without_coordinates(f"{sample.instruction} {sample.answer}")
        return None if _freedom_of_prompt(sample) is Freedom.NONE or speaks_of_place(words) else sample
    text = sample.views[OTHER_TURNS.index((flip, turns))] if sample.views else None
    return None if text is None else dataclasses.replace(sample, instruction=text[0], answer=text[1])


def freedom(sample: Sample) -> Freedom:
    """How the scale of a sample's picture may change.

    An interactive instruction must spell out the sample's own coordinates or none; where it also speaks of
    place, no part is shown. Other instructions, and their answers, do not follow the picture: a part is shown
    only where they speak of nothing but the thing itself. Digits that are no coordinates in a known form
    might be some in another: such a picture stays as it is.
    """
    words = f"{sample.instruction} {sample.answer}"
    if sample.task == INTERACTIVE:
        free = _freedom_of_prompt(sample)
        return min(free, Freedom.SHRINK) if speaks_of_place(without_coordinates(words)) else free
    if any(c.isdigit() for c in words):
        return Freedom.NONE
    return Freedom.SHRINK if speaks_of_surroundings(words) else Freedom.CROP


def _freedom_of_prompt(sample: Sample) -> Freedom:
    """What the coordinates of an interactive sample allow."""
    rest = without_coordinates(f"{sample.instruction} {sample.answer}")
    one = (sample.box is None) != (sample.points is None)
    sure = one and _written_truly(sample) and not any(c.isdigit() for c in rest)
    return Freedom.CROP if sure else Freedom.NONE


def _written_truly(sample: Sample) -> bool:
    """Whether the text spells out the sample's own coordinates, or none."""
    if count_coordinates(sample.answer) != (0, 0):  # a reply is not rewritten
        return False
    counts = count_coordinates(sample.instruction)
    if counts != (0, 0) and counts != ((1, 0) if sample.box is not None else (0, len(sample.points or ()))):
        return False
    box, points = parse_coordinates(sample.instruction)
    written = [*(box or ()), *(value for point in points or () for value in point)]
    own = [*(sample.box or ()), *(value for point in sample.points or () for value in point)]
    return all(abs(a - b) <= _WRITTEN for a, b in zip(written, own, strict=False))


def extent_to_keep(samples: Sequence[Sample], height: int, width: int) -> Extent | None:
    """The smallest part of a picture that holds all regions and prompts; ``None`` where there are none."""
    found: list[Extent] = []
    for sample in samples:
        if sample.mask is not None and sample.mask.any():
            x, y, w, h = cv2.boundingRect(sample.mask)
            found.append((y, y + h, x, x + w))
        corners = [*(sample.points or ())]
        if sample.box is not None:
            corners += [sample.box[:2], sample.box[2:]]
        for x, y in corners:
            found.append(_pixel(y, height) + _pixel(x, width))
    if not found:
        return None
    tops, bottoms, lefts, rights = zip(*found, strict=True)
    return min(tops), max(bottoms), min(lefts), max(rights)


def _pixel(value: float, length: int) -> tuple[int, int]:
    """The whole pixels around a coordinate; a border between two has none of its own."""
    at = value * length
    nearest = round(at)
    if abs(at - nearest) < 1e-6 * length:  # stored coordinates are rounded to six decimals
        return nearest, nearest
    return int(at), int(at) + 1
