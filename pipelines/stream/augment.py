"""Changes of a position's picture, drawn from (seed, position): the same for any number of workers.

The draws come from hashes, not from a generator's stream, so that they stay the same between versions.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.config.data import AugmentConfig
from pipelines.plan.permute import derive_key
from unigeoseg.samples.sample import ImageGroup, Sample
from unigeoseg.samples.view import Extent, Freedom, View, extent_to_keep, freedom, retold

#: A blur of fewer pixels changes nothing that one could see.
_LEAST_BLUR = 0.1


class Draw:
    """The random numbers of one picture, each under a name of its own."""

    def __init__(self, seed: int, position: int, number: int) -> None:
        self._key = seed, "augment", position, number

    def between(self, name: str, low: float, high: float) -> float:
        """A number in [low, high), uniformly."""
        return low + (high - low) * (derive_key(*self._key, name) / 2.0**64)

    def whole(self, name: str, low: int, high: int) -> int:
        """An integer in [low, high], uniformly."""
        return low + derive_key(*self._key, name) * (high - low + 1) // 2**64


class Augment:
    """Changes pictures as the settings say.

    Args:
        settings: how much; what is off draws nothing.
        seed: of the run.
    """

    def __init__(self, settings: AugmentConfig, seed: int) -> None:
        self._settings, self._seed = settings, seed

    def __call__(self, group: ImageGroup, position: int, number: int = 0) -> ImageGroup:
        """The picture with its samples as training sees it at ``position``; the given one stays as it is.

        Args:
            group: a picture with all of its samples at the position.
            position: of the plan.
            number: of the picture within the position.
        """
        draw = Draw(self._seed, position, number)
        view = self.view(group.samples, group.image.shape[0], group.image.shape[1], draw)
        group = group if view is None else view.group(group)
        return ImageGroup(self.pixels(group.image, draw), group.samples)

    def view(self, samples: Sequence[Sample], height: int, width: int, draw: Draw) -> View | None:
        """How the picture of ``samples`` is looked at; ``None``: as it is."""
        settings = self._settings
        if not (settings.flips or settings.turns or settings.scale != (1.0, 1.0)):
            return None
        flip, turns = self._turn(draw)
        told = [retold(sample, flip, turns) for sample in samples]
        seen = [sample for sample in told if sample is not None]
        if len(seen) < len(samples):  # one of the texts would be wrong
            flip, turns, seen = False, 0, list(samples)
        free = min(map(freedom, seen))
        turned = View(flip, turns, (0, height, 0, width) if turns % 2 == 0 else (0, width, 0, height))
        low, high = settings.scale
        low, high = (low if free >= Freedom.SHRINK else 1.0), (high if free >= Freedom.CROP else 1.0)
        factor = draw.between("scale", low, high)
        _, rows, _, columns = turned.window
        window = turned.window
        if factor < 1:
            window = _around(rows, columns, factor)
        elif factor > 1:
            keep = extent_to_keep(samples, height, width)
            window = _part(rows, columns, factor, keep and turned.extent(keep, height, width), draw)
        view = View(flip, turns, window)
        return None if view == View(False, 0, (0, height, 0, width)) else view

    def _turn(self, draw: Draw) -> tuple[bool, int]:
        """Whether the picture is flipped, and by how many quarters it is then turned."""
        settings = self._settings
        flip = settings.flips and bool(draw.whole("flip", 0, 1))
        if settings.turns:
            return flip, draw.whole("turns", 0, 3)
        if settings.flips and draw.whole("upside", 0, 1):
            return not flip, 2  # top and bottom change places
        return flip, 0

    def pixels(self, image: NDArray[np.uint8], draw: Draw) -> NDArray[np.uint8]:
        """An RGB image uint8 ``[H, W, 3]`` with other light and sharpness."""
        settings = self._settings
        by = {
            name: draw.between(name, 1.0 - getattr(settings, name), 1.0 + getattr(settings, name))
            for name in ("brightness", "contrast", "saturation")
        }
        if settings.brightness or settings.contrast:
            image = cv2.LUT(image, _light(image, by["brightness"], by["contrast"]))
        if settings.saturation:
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            image = cv2.addWeighted(image, by["saturation"], grey, 1.0 - by["saturation"], 0.0)
        sigma = draw.between("blur", 0.0, settings.blur)
        return cv2.GaussianBlur(image, (0, 0), sigma) if sigma >= _LEAST_BLUR else image


def _light(image: NDArray[np.uint8], brightness: float, contrast: float) -> NDArray[np.uint8]:
    """What becomes of each of the 256 values: times ``brightness``, then further from the mean grey."""
    values = np.clip(np.arange(256) * brightness, 0, 255)
    # The mean from whole numbers: a float sum over pixels would depend on how threads share them.
    counts = np.bincount(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).ravel(), minlength=256)
    mean = float(counts @ np.rint(values).astype(np.int64)) / image[..., 0].size
    return np.clip(np.rint(mean + (values - mean) * contrast), 0, 255).astype(np.uint8)


def _around(rows: int, columns: int, factor: float) -> Extent:
    """A window in whose middle the picture lies, ``factor`` times as large as it."""
    height, width = round(rows / factor), round(columns / factor)
    top, left = -((height - rows) // 2), -((width - columns) // 2)
    return top, top + height, left, left + width


def _part(rows: int, columns: int, factor: float, keep: Extent | None, draw: Draw) -> Extent:
    """A window within the picture, of its shape, up to ``factor`` times smaller; it holds ``keep``."""
    top, bottom, left, right = keep or (0, 0, 0, 0)
    factor = min(factor, rows / max(bottom - top, 1), columns / max(right - left, 1))
    height, width = max(round(rows / factor), bottom - top), max(round(columns / factor), right - left)
    if keep is None:
        top, bottom, left, right = rows, 0, columns, 0
    first_row = draw.whole("row", max(0, bottom - height), min(top, rows - height))
    first_column = draw.whole("column", max(0, right - width), min(left, columns - width))
    return first_row, first_row + height, first_column, first_column + width
