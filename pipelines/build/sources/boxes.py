"""Sources with boxes or polygons per image, turned into masks by filling them or by a promptable model."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.build.config import BoxConfig
from pipelines.build.regions import Region
from pipelines.build.sources.annotations import Annotation, read_annotations
from pipelines.build.sources.base import SourceImage, SourceItem
from pipelines.build.sources.listing import list_items
from pipelines.build.sources.outlines import Outline, draw, fault, order, reaches_out, tight
from pipelines.build.sources.promptable import Segmenter, load_segmenter, weights_fingerprint
from pipelines.build.sources.raster import Raster, open_image
from pipelines.build.sources.strips import Strips
from pipelines.build.sources.table import SourceTable
from pipelines.build.stages import StageCounts
from pipelines.build.tiling import Window
from unigeoseg.errors import UserError


class BoxImage:
    """An image with the outlines of its objects.

    Args:
        image: RGB rows.
        outlines: usable objects.
        dropped: annotations that are not, by reason.
        clipped: outlines that reach past the image's edge.
        segmenter: makes masks from boxes; ``None`` fills the outlines.
    """

    def __init__(
        self,
        image: Raster,
        outlines: list[Outline],
        dropped: Counter[str],
        clipped: int,
        segmenter: Segmenter | None,
    ) -> None:
        self.height, self.width = image.height, image.width
        self.encoded: bytes | None = None
        self.extension = "png"
        self._pixels, self._outlines, self._segmenter = Strips(image), outlines, segmenter
        self._dropped, self._clipped = dropped, clipped
        self._made: Counter[str] = Counter()

    def cut(self, window: Window) -> SourceImage:
        """Pixels of a window and the objects in it."""
        pixels = np.ascontiguousarray(self._pixels.cut(window))
        regions = self._regions(pixels, window)
        self._made.update(str(region.mask_from) for region in regions)
        return SourceImage(pixels, np.zeros(pixels.shape[:2], np.int32), regions=regions)

    def _regions(self, pixels: np.ndarray, window: Window) -> list[Region]:
        drawn = [(outline, draw(outline, window)) for outline in self._outlines]
        inside = [(outline, region) for outline, region in drawn if region is not None]
        if self._segmenter is None or not inside:
            return [_from(region, "polygon") for _, region in inside]
        boxes = [_clip(outline, window) for outline, _ in inside]
        masks = self._segmenter.masks(pixels, boxes)
        made = [tight(outline.category_id, m, 0, 0) for m, (outline, _) in zip(masks, inside, strict=True)]
        return [
            _from(filled, "polygon: empty model mask") if one is None else _from(one, self._segmenter.name)
            for one, (_, filled) in zip(made, inside, strict=True)
        ]

    def count(self, counts: StageCounts) -> None:
        """Counts annotations in and out, and how the masks of the tiles were made."""
        kept = len(self._outlines)
        noted = {"clipped": self._clipped} | {f"mask from {k}": n for k, n in sorted(self._made.items())}
        counts.add("boxes", kept + self._dropped.total(), kept, dict(self._dropped), noted)


def _from(region: Region, how: str) -> Region:
    region.mask_from = how
    return region


def _clip(outline: Outline, window: Window) -> tuple[float, float, float, float]:
    """The upright box around an outline inside a window, in the window's pixels."""
    x0, y0, x1, y1 = outline.box
    return (
        max(x0 - window.x, 0.0),
        max(y0 - window.y, 0.0),
        min(x1 - window.x, float(window.width)),
        min(y1 - window.y, float(window.height)),
    )


class BoxSource:
    """A data set of images and boxes.

    Args:
        table: where files are and what class names mean.
        root: the data set's folder.
        layout: name of a layout; ``None`` takes the one that fits.
        max_unknown_share: share of an image's objects that may be of an unknown class.
        config: how boxes become masks.

    Raises:
        UserError: the model's folder is none.
    """

    def __init__(
        self, table: SourceTable, root: Path, layout: str | None, max_unknown_share: float, config: BoxConfig
    ) -> None:
        self.name, self.licence = table.name, table.licence
        self._table, self._share, self._config = table, max_unknown_share, config
        weights = weights_fingerprint(config.model) if config.model else ""
        self.fingerprint = table.fingerprint + weights
        self._root, self._wanted = root, layout
        self._categories = {row.name: row.category for row in table.classes}

    def items(self) -> Iterator[SourceItem]:
        """One item an image.

        Raises:
            UserError: the folder does not hold such a data set.
        """
        return list_items(self._root, self._table, self._wanted)

    def read(self, item: SourceItem) -> BoxImage:
        """Opens an image and its label file.

        Raises:
            UnusableImage: a missing or unreadable file.
            UserError: too many objects of an unknown class.
        """
        image_file, file = Path(item.detail["image"]), Path(item.detail["label"])
        image, encoded, extension = open_image(image_file, self._table.bands, self._table.stretch)
        objects = read_annotations(file, str(item.detail["form"]), image_file.name)
        outlines, dropped, clipped = self._usable(objects, image.height, image.width, file)
        segmenter = load_segmenter(self._config) if self._config.model else None
        opened = BoxImage(image, outlines, dropped, clipped, segmenter)
        opened.encoded, opened.extension = encoded, extension
        return opened

    def _usable(
        self, objects: list[Annotation], height: int, width: int, file: Path
    ) -> tuple[list[Outline], Counter[str], int]:
        outlines: list[Outline] = []
        dropped: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        clipped = 0
        for one in objects:
            if one.name not in self._categories:
                unknown[one.name] += 1
                continue
            category = self._categories[one.name]
            corners = order(one.outline) if len(one.outline) == 4 else one.outline
            reason = "ignored_class" if category is None else fault(corners, height, width)
            if reason is not None or category is None:
                dropped[reason or "ignored_class"] += 1
                continue
            clipped += reaches_out(corners, height, width)
            outlines.append(Outline(category, corners))
        if unknown.total() > self._share * len(objects):
            worst, number = unknown.most_common(1)[0]
            raise UserError(
                f"{file}: class {worst!r} ({number} objects) is not in the table of source {self.name}: add "
                "it to the classes, or raise max_unknown_share"
            )
        dropped["unknown_class"] += unknown.total()
        return outlines, +dropped, clipped
