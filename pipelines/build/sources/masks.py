"""Sources with a semantic mask per image, as a table describes them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.build.sources.base import SourceImage, SourceItem, UnusableImage
from pipelines.build.sources.encoding import ColourDecoder, IndexDecoder, Tally, ThresholdDecoder
from pipelines.build.sources.listing import Told, list_items
from pipelines.build.sources.strips import Strips
from pipelines.build.sources.table import SourceTable
from pipelines.labels.stages import StageCounts
from pipelines.labels.tiling import Window
from pipelines.pictures.masks import open_colours, open_index
from pipelines.pictures.picture import Picture, open_picture
from pipelines.pictures.place import lay
from pipelines.pictures.rasters import ALL, Raster
from pipelines.pictures.remote import Where, where_is
from unigeoseg.errors import UserError

Decoder = Callable[..., NDArray[np.int32]]


class _Labels:
    """Rows of category ids, decoded as they are read.

    Args:
        mask: rows that ``decode`` understands.
        valid: where there is data, by the picture and by the mask.
        decode: turns rows of the mask into category ids, and counts them.
    """

    def __init__(self, mask: Raster, valid: list[Raster], decode: Decoder, tally: Tally) -> None:
        self._mask, self._valid, self._decode, self._tally = mask, valid, decode, tally
        self.height, self.width = mask.height, mask.width
        self._band, self._counted = (0, 0), 0

    def rows(self, start: int, stop: int, columns: slice = ALL) -> NDArray[np.int32]:
        """int32 ``[h, W]``; where bands overlap, what an earlier one counted is not counted again."""
        left, right, _ = columns.indices(self.width)
        if (left, right) != self._band:
            self._counted, self._band = self._band[1], (left, right)
        found = [valid.rows(start, stop, columns) for valid in self._valid]
        valid = np.logical_and.reduce(found) if found else None
        mask, known = self._mask.rows(start, stop, columns), max(self._counted - left, 0)
        if not known:
            return self._decode(mask, self._tally, valid)
        again = self._decode(mask[:, :known], Tally(), None if valid is None else valid[:, :known])
        fresh = self._decode(mask[:, known:], self._tally, None if valid is None else valid[:, known:])
        return np.concatenate([again, fresh], axis=1)


class MaskImage:
    """An image with its mask, read strip by strip.

    Args:
        image: the picture.
        mask: rows that ``decode`` understands.
        valid: where there is data.
        decode: turns rows of the mask into category ids, and counts them.
        file: of the mask, for messages.
        max_unknown_share: share of the mask that may be unknown.
        in_blocks: whether some columns of picture and mask can be read without the others.
        vocabulary: categories that a mask of this form can show.
    """

    def __init__(
        self,
        image: Picture,
        mask: Raster,
        valid: list[Raster],
        decode: Decoder,
        file: Where,
        max_unknown_share: float,
        in_blocks: bool = False,
        vocabulary: frozenset[int] = frozenset(),
    ) -> None:
        self.height, self.width = image.height, image.width
        self.encoded, self.extension = image.encoded, image.extension
        self.in_blocks = in_blocks
        self._vocabulary = vocabulary
        self._tally, self._file, self._share = Tally(), file, max_unknown_share
        self._pixels = Strips(image.raster)
        self._labels = Strips(_Labels(mask, valid, decode, self._tally))

    def cut(self, window: Window) -> SourceImage:
        """Pixels and labels of a window."""
        labels = np.ascontiguousarray(self._labels.cut(window))
        unlabelled = int(np.count_nonzero(labels == 0))
        if (background := labels < 0).any():
            labels = np.where(background, np.int32(0), labels)
        return SourceImage(
            np.ascontiguousarray(self._pixels.cut(window)),
            labels,
            vocabulary=self._vocabulary,
            unlabelled=unlabelled,
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
        dropped = {"ignore": tally.ignored, "no_data": tally.no_data, "unknown": unknown}
        counts.add("standardise", tally.pixels, tally.labelled, dropped)


class MaskSource:
    """A data set of images and masks.

    Args:
        table: where files are and what values mean.
        root: the data set's folder.
        layout: name of a layout; ``None`` takes the one that fits.
        max_unknown_share: share of a mask that may be unknown.
        max_unmatched_share: share of files that may match nothing.

    Attributes:
        told: what lies in the folder and matches nothing, once all items were listed.
    """

    def __init__(
        self,
        table: SourceTable,
        root: Where,
        layout: str | None,
        max_unknown_share: float,
        max_unmatched_share: float = 1.0,
    ) -> None:
        self.name, self.licence, self.gsd = table.name, table.licence, table.gsd_range
        self.fingerprint = table.fingerprint
        self._table, self._share = table, max_unknown_share
        self._root, self._wanted, self._max_unmatched = root, layout, max_unmatched_share
        self.told = Told()

    def items(self) -> Iterator[SourceItem]:
        """One item an image, then one a mask without image.

        Raises:
            UserError: the folder does not hold such a data set.
        """
        self.told = Told()
        return list_items(self._root, self._table, self._wanted, self.told, self._max_unmatched)

    def read(self, item: SourceItem) -> MaskImage:
        """Opens an image with its mask.

        Raises:
            UnusableImage: a missing or unreadable file, or a mask of another size or place.
        """
        image_file, mask_file = where_is(item.detail["image"]), where_is(item.detail["label"])
        if not item.detail["image"]:
            raise UnusableImage("missing_image", str(mask_file), "there is no image for this mask")
        image = open_picture(image_file, self._table.rules)
        if isinstance(mask_file, Path) and not mask_file.is_file():
            raise UnusableImage("missing_mask", str(mask_file), f"there is no mask for {image_file.name}")
        indexed = item.detail["form"] == "index"
        threshold = item.detail.get("threshold")
        mask = open_index(mask_file, threshold is not None) if indexed else open_colours(mask_file)
        laid, reach = lay(mask, mask.file, image, image_file.name)
        valid = [one for one in (image.valid, reach) if one is not None]
        decode = self._decoder(indexed, threshold)
        in_blocks = image.in_blocks and mask.file.in_blocks
        return MaskImage(
            image, laid, valid, decode, mask_file, self._share, in_blocks, self._vocabulary(indexed)
        )

    def _vocabulary(self, indexed: bool) -> frozenset[int]:
        """The categories of the classes that masks of a form have a value or colour for."""
        rows = self._table.classes
        return frozenset(
            row.category
            for row in rows
            if row.category and (row.value if indexed else row.colour) is not None
        )

    def _decoder(self, indexed: bool, threshold: float | None) -> Callable[..., NDArray[np.int32]]:
        if not indexed:
            return ColourDecoder(self._table)
        return IndexDecoder(self._table) if threshold is None else ThresholdDecoder(self._table, threshold)
