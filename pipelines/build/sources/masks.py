"""Sources with a semantic mask per image, as a table describes them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.build.sources.base import SourceImage, SourceItem, UnusableImage
from pipelines.build.sources.encoding import ColourDecoder, IndexDecoder, Tally, ThresholdDecoder
from pipelines.build.sources.listing import list_items
from pipelines.build.sources.raster import Raster, open_colours, open_image, open_index
from pipelines.build.sources.strips import Strips
from pipelines.build.sources.table import SourceTable
from pipelines.build.stages import StageCounts
from pipelines.build.tiling import Window
from unigeoseg.errors import UserError


class MaskImage:
    """An image with its mask, read strip by strip.

    Args:
        image: RGB rows.
        mask: rows that ``decode`` understands.
        decode: turns rows of the mask into category ids, and counts them.
        file: of the mask, for messages.
        max_unknown_share: share of the mask that may be unknown.
    """

    def __init__(
        self,
        image: Raster,
        mask: Raster,
        decode: Callable[..., NDArray[np.int32]],
        file: Path,
        max_unknown_share: float,
    ) -> None:
        self.height, self.width = image.height, image.width
        self.encoded: bytes | None = None
        self.extension = "png"
        self._tally, self._file, self._share = Tally(), file, max_unknown_share
        self._pixels = Strips(image)
        self._labels = Strips(mask, lambda rows: decode(rows, self._tally))

    def cut(self, window: Window) -> SourceImage:
        """Pixels and labels of a window."""
        return SourceImage(
            np.ascontiguousarray(self._pixels.cut(window)), np.ascontiguousarray(self._labels.cut(window))
        )

    def count(self, counts: StageCounts) -> None:
        """Counts labelled and ignored pixels.

        Raises:
            UserError: more unknown pixels than allowed.
        """
        tally = self._tally
        unknown = tally.unknown.total()
        if unknown > self._share * tally.pixels:
            worst, _ = tally.unknown.most_common(1)[0]
            raise UserError(
                f"{self._file}: {worst} is in no class; {unknown / tally.pixels:.1%} of the mask is unknown, "
                f"{self._share:.1%} is allowed. Correct the mask, or raise max_unknown_share"
            )
        dropped = {"ignore": tally.ignored, "unknown": unknown}
        counts.add("standardise", tally.pixels, tally.labelled, dropped)


class MaskSource:
    """A data set of images and masks.

    Args:
        table: where files are and what values mean.
        root: the data set's folder.
        layout: name of a layout; ``None`` takes the one that fits.
        max_unknown_share: share of a mask that may be unknown.
    """

    def __init__(self, table: SourceTable, root: Path, layout: str | None, max_unknown_share: float) -> None:
        self.name, self.licence = table.name, table.licence
        self.fingerprint = table.fingerprint
        self._table, self._share = table, max_unknown_share
        self._root, self._wanted = root, layout

    def items(self) -> Iterator[SourceItem]:
        """One item an image, then one a mask without image.

        Raises:
            UserError: the folder does not hold such a data set.
        """
        return list_items(self._root, self._table, self._wanted)

    def read(self, item: SourceItem) -> MaskImage:
        """Opens an image with its mask.

        Raises:
            UnusableImage: a missing or unreadable file, or a mask of another size.
        """
        image_file, mask_file = Path(item.detail["image"]), Path(item.detail["label"])
        if not item.detail["image"]:
            raise UnusableImage("missing_image", str(mask_file), "there is no image for this mask")
        image, encoded, extension = open_image(image_file, self._table.bands, self._table.stretch)
        if not mask_file.is_file():
            raise UnusableImage("missing_mask", str(mask_file), f"there is no mask for {image_file.name}")
        indexed = item.detail["form"] == "index"
        threshold = item.detail.get("threshold")
        mask = open_index(mask_file, threshold is not None) if indexed else open_colours(mask_file)
        if (mask.height, mask.width) != (image.height, image.width):
            raise UnusableImage(
                "mask_size",
                str(mask_file),
                f"the mask is {mask.width}x{mask.height} pixels, its image {image.width}x{image.height}",
            )
        opened = MaskImage(image, mask, self._decoder(indexed, threshold), mask_file, self._share)
        opened.encoded, opened.extension = encoded, extension
        return opened

    def _decoder(self, indexed: bool, threshold: float | None) -> Callable[..., NDArray[np.int32]]:
        if not indexed:
            return ColourDecoder(self._table)
        return IndexDecoder(self._table) if threshold is None else ThresholdDecoder(self._table, threshold)
