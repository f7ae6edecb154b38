"""Copy and paste (Ghiasi et al. 2021, arXiv 2012.07177): tiles with objects of other pictures pasted in.

Scenes are few in most data sets of aerial pictures, and a model learns them by heart. An object cut out along
its mask, turned, flipped, a little larger or smaller, and put down elsewhere, is new truth that costs
nothing: regions are found, chosen and described anew on the pasted tile, as on any other. Only pictures for
training give and take objects.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.build.sources.base import SourceImage
from pipelines.config.building import PasteConfig
from pipelines.labels.regions import Region

#: Objects that are held at a time: of tiles of 512 pixels some tens of megabytes.
_HELD = 256
#: Pixels around an object that come along, so that its rim can be blended.
_MARGIN = 4
#: Standard deviation of that blending, in pixels.
_SOFT = 1.0
#: Smallest share of its box that a component of a semantic mask fills: roads and the like are no objects.
_COMPACT = 0.5
#: Places that are tried for an object.
_TRIES = 10
#: Pixels between an object and what it must not touch.
_APART = 2


@dataclass(frozen=True)
class Cutout:
    """An object of a picture.

    Attributes:
        category_id: of the taxonomy.
        pixels: uint8 RGB ``[h, w, 3]``, with a margin.
        mask: uint8 0/1 ``[h, w]``.
        colour: colour word, where the source knows it.
    """

    category_id: int
    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    colour: str | None

    def changed(self, scale: float, turns: int, flip: bool) -> "Cutout":
        """Flipped, turned by quarters against the clock, and scaled."""
        pixels, mask = (a[:, ::-1] if flip else a for a in (self.pixels, self.mask))
        pixels, mask = (np.ascontiguousarray(np.rot90(a, turns)) for a in (pixels, mask))
        height, width = (max(1, round(side * scale)) for side in mask.shape)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return Cutout(
            self.category_id,
            np.asarray(cv2.resize(pixels, (width, height), interpolation=how), np.uint8),
            np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8),
            self.colour,
        )


class Cutouts:
    """Objects of the pictures seen so far, each with the same chance to be among those that are held.

    Args:
        config: which objects are taken.
        rng: decides what is kept (reservoir sampling).
    """

    def __init__(self, config: PasteConfig, rng: np.random.Generator) -> None:
        self._config, self._rng = config, rng
        self._held: list[Cutout] = []
        self._seen = 0

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, place: int) -> Cutout:
        return self._held[place]

    def offer(self, part: SourceImage, regions: list[Region]) -> None:
        """Takes the objects of a tile: whole ones, with masks of their own, neither tiny nor large."""
        semantic = part.regions is None and part.instances is None
        tile = part.height * part.width
        for region in regions:
            height, width = region.crop.shape
            share = region.area / tile
            if region.mask_from is not None or not self._config.min_area <= share <= self._config.max_area:
                continue
            if min(region.y0, region.x0) == 0 or region.y1 == part.height or region.x1 == part.width:
                continue
            if semantic and region.area < _COMPACT * height * width:
                continue
            self._seen += 1
            place = len(self._held) if len(self._held) < _HELD else int(self._rng.integers(self._seen))
            if place < _HELD:
                self._held[place : place + 1] = [_cut_out(part.pixels, region)]


def _cut_out(pixels: NDArray[np.uint8], region: Region) -> Cutout:
    height, width = pixels.shape[:2]
    top, left = max(region.y0 - _MARGIN, 0), max(region.x0 - _MARGIN, 0)
    bottom, right = min(region.y1 + _MARGIN, height), min(region.x1 + _MARGIN, width)
    mask = region.full(height, width)[top:bottom, left:right].copy()
    return Cutout(region.category_id, pixels[top:bottom, left:right].copy(), mask, region.colour)


def pasted(
    part: SourceImage, cutouts: Cutouts, config: PasteConfig, rng: np.random.Generator
) -> SourceImage | None:
    """A tile with some objects pasted in; ``None`` where none of them found room.

    No object is covered or touched. Where a source has a category for each pixel, what is pasted covers what
    is there, and does not touch its own category.

    Args:
        part: the tile; it stays as it is.
        cutouts: to draw from.
        config: how many, how large.
        rng: draws.
    """
    if not len(cutouts):
        return None
    tile = _Tile(part)
    low, high = config.instances
    for _ in range(int(rng.integers(low, high + 1))):
        drawn = cutouts[int(rng.integers(len(cutouts)))]
        scale = float(rng.uniform(*config.scale))
        one = drawn.changed(scale, int(rng.integers(4)), bool(rng.integers(2)))
        if (place := tile.room(one, rng)) is not None:
            tile.put(one, *place)
    return tile.finished() if tile.count else None


class _Tile:
    """A tile on which objects are put down, whichever way its source tells of them."""

    def __init__(self, part: SourceImage) -> None:
        self._part, self.count = part, 0
        self._pixels, self._labels = part.pixels.copy(), part.labels.copy()
        self._instances = None if part.instances is None else dict(part.instances)
        self._colours = dict(part.colours)
        self._regions = None if part.regions is None else list(part.regions)
        self._taken = np.zeros(part.labels.shape, np.uint8)
        for region in part.regions or ():
            self._taken[region.window] |= region.crop
        if part.instances is not None:
            self._taken |= part.labels > 0

    def room(self, one: Cutout, rng: np.random.Generator) -> tuple[int, int] | None:
        """Row and column for a cutout, inside the tile and apart from what it must not touch."""
        height, width = one.mask.shape
        down, across = self._part.height - height, self._part.width - width
        if min(down, across) < 0 or not one.mask.any():
            return None
        semantic = self._regions is None and self._instances is None
        taken = self._taken | (self._labels == one.category_id) if semantic else self._taken
        near = cv2.dilate(one.mask, np.ones((2 * _APART + 1,) * 2, np.uint8)) > 0
        for _ in range(_TRIES):
            row, column = int(rng.integers(down + 1)), int(rng.integers(across + 1))
            if not taken[row : row + height, column : column + width][near].any():
                return row, column
        return None

    def put(self, one: Cutout, row: int, column: int) -> None:
        """Puts a cutout down, its rim blended."""
        height, width = one.mask.shape
        window = slice(row, row + height), slice(column, column + width)
        share = cv2.GaussianBlur(one.mask.astype(np.float32), (0, 0), _SOFT)[..., None]
        mixed = share * one.pixels + (1 - share) * self._pixels[window]
        self._pixels[window] = np.rint(mixed).astype(np.uint8)
        inside = one.mask > 0
        if self._regions is not None:
            self._regions.append(_region(one, inside, row, column))
        elif self._instances is not None:
            number = 1 + max(self._instances, default=0)
            self._instances[number] = one.category_id
            if one.colour is not None:
                self._colours[number] = one.colour
            self._labels[window][inside] = number
        else:
            self._labels[window][inside] = one.category_id
        self._taken[window] |= one.mask
        self.count += 1

    def finished(self) -> SourceImage:
        """The tile as its source would have given it."""
        return replace(
            self._part,
            pixels=self._pixels,
            labels=self._labels,
            instances=self._instances,
            colours=self._colours,
            regions=self._regions,
            encoded=None,
            extension="png",
        )


def _region(one: Cutout, inside: NDArray[np.bool_], row: int, column: int) -> Region:
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return Region(
        one.category_id,
        row + top,
        column + left,
        row + bottom,
        column + right,
        inside[top:bottom, left:right].copy(),
        one.colour,
    )
