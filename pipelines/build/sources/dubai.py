"""Dubai aerial imagery (Humans in the Loop and the Mohammed Bin Rashid Space Center), 6 classes.

Layout: ``Tile N/images/image_part_00K.jpg`` with ``Tile N/masks/image_part_00K.png``; the nine parts of a
tile folder touch, so the folder is what a split keeps together. Colours were read off the masks: those in the
data set's own ``classes.json`` are wrong. Some masks are palette PNGs; black occurs and means nothing.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.build.sources.base import SourceImage, SourceItem, UnusableImage
from pipelines.build.sources.files import decode_colours, read_rgb
from pipelines.build.taxonomy import category_id
from unigeoseg.errors import UserError

#: Mask colour to category; 0 is ignored (unlabelled, and black).
COLOURS: dict[tuple[int, int, int], int] = {
    (60, 16, 152): category_id("Building"),
    (132, 41, 246): category_id("Bare Land"),
    (110, 193, 228): category_id("Road"),
    (254, 221, 58): category_id("Vegetation"),
    (226, 169, 41): category_id("Water"),
    (155, 155, 155): 0,
    (0, 0, 0): 0,
}
_FOLDER = re.compile(r"Tile (\d+)$")
_SUFFIXES = (".jpg", ".jpeg", ".png")


class DubaiSource:
    """Adapter of the Dubai imagery.

    Args:
        root: the folder that holds ``Tile 1``, ``Tile 2``, ...
        max_unknown_share: share of a mask's pixels that may have an unknown colour.

    Raises:
        UserError: there are no tile folders with images in ``root``.
    """

    name = "dubai"
    licence = "CC0-1.0"

    def __init__(self, root: Path, max_unknown_share: float) -> None:
        self._root, self._share = root, max_unknown_share
        self._items = self._find()

    def items(self) -> Sequence[SourceItem]:
        """One item an image part."""
        return self._items

    def _find(self) -> list[SourceItem]:
        folders = [
            (int(m[1]), f) for f in self._root.iterdir() if f.is_dir() and (m := _FOLDER.match(f.name))
        ]
        found = []
        for number, folder in sorted(folders):
            images = folder / "images"
            files = sorted(images.iterdir()) if images.is_dir() else []
            for file in (f for f in files if f.suffix.lower() in _SUFFIXES):
                mask = folder / "masks" / f"{file.stem}.png"
                key = f"tile_{number:02d}_{re.sub(r'[^0-9A-Za-z]+', '_', file.stem)}"
                detail = {"image": str(file), "mask": str(mask)}
                found.append(SourceItem(key, f"{folder.name}/{file.stem}", folder.name, detail))
        if not found:
            raise UserError(
                f"{self._root} holds no 'Tile N/images/*.jpg': "
                "give the folder that contains 'Tile 1' as --root"
            )
        return found

    def read(self, item: SourceItem) -> SourceImage:
        """Reads an image part with its mask.

        Raises:
            UnusableImage: unreadable or truncated file, missing mask, or a mask of another size.
            UserError: too many pixels of an unknown colour.
        """
        image_file, mask_file = Path(item.detail["image"]), Path(item.detail["mask"])
        pixels, encoded = read_rgb(image_file, "image")
        if not mask_file.is_file():
            raise UnusableImage("missing_mask", str(mask_file), f"there is no mask for {image_file.name}")
        colours, _ = read_rgb(mask_file, "mask")
        if colours.shape != pixels.shape:
            (h, w), (mh, mw) = pixels.shape[:2], colours.shape[:2]
            raise UnusableImage(
                "mask_size", str(mask_file), f"the mask is {mw}x{mh} pixels, its image {w}x{h}"
            )
        labels, ignored = self._labels(colours, mask_file)
        extension = "png" if image_file.suffix.lower() == ".png" else "jpg"
        return SourceImage(pixels, labels, encoded=encoded, extension=extension, ignored=ignored)

    def _labels(self, colours: NDArray[np.uint8], file: Path) -> tuple[NDArray[np.int32], dict[str, int]]:
        labels, unknown = decode_colours(colours, COLOURS)
        missing = sum(unknown.values())
        if missing > self._share * labels.size:
            colour = max(unknown, key=lambda c: unknown[c])
            raise UserError(
                f"{file}: colour {colour} is in no class; {missing / labels.size:.1%} of the mask has "
                f"unknown colours, {self._share:.1%} is allowed. Correct the mask, or raise max_unknown_share"
            )
        ignored = int(np.count_nonzero(labels == 0)) - missing
        return labels, {"ignore": ignored, "unknown_colour": missing}
