"""Sources with boxes or polygons per image, turned into masks by filling them or by a promptable model."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from pipelines.build.sources.annotations import Annotation, read_annotations
from pipelines.build.sources.base import SourceImage, SourceItem, UnusableImage
from pipelines.build.sources.coco import coco_shape
from pipelines.build.sources.grid import Grid
from pipelines.build.sources.listing import Told, list_items
from pipelines.build.sources.promptable import Segmenter, load_segmenter, weights_fingerprint
from pipelines.build.sources.strips import Strips
from pipelines.build.sources.table import SourceTable
from pipelines.build.sources.vector import vector_objects
from pipelines.config.building import BoxConfig
from pipelines.labels.outlines import Outline, order, reaches_out, tight
from pipelines.labels.regions import Region
from pipelines.labels.shapes import Shape, shape_fault
from pipelines.labels.stages import StageCounts
from pipelines.labels.tiling import Window
from pipelines.pictures.picture import Picture, open_picture
from pipelines.pictures.place import Frame, frame_of
from pipelines.pictures.remote import Where, where_is
from pipelines.pictures.turn import turn_points
from unigeoseg.errors import UserError

#: An object before it is checked: its class, and what makes a shape of it in a category, or says why not.
_Maker = Callable[[int], tuple[Shape | None, str]]


@dataclass
class Objects:
    """The objects of an image.

    Attributes:
        shapes: those that can be used.
        dropped: number of the others, by reason.
        named: which those are.
        clipped: shapes that reach past the image's edge.
        partial: categories of which an object cannot be used.
        veils: shapes of an ignored class: what lies in them is of no known category.
        unsure: whether an object of no known category or place may lie anywhere.
    """

    shapes: list[Shape] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)
    clipped: int = 0
    partial: set[int] = field(default_factory=set)
    veils: list[Shape] = field(default_factory=list)
    unsure: bool = False

    def drop(self, reason: str, name: str) -> None:
        """Counts and names an object that cannot be used."""
        self.dropped[reason] += 1
        self.named.setdefault(reason, []).append(name)

    def veil(self, shape: Shape | None, height: int, width: int) -> None:
        """Notes an object of an ignored class; without a usable shape it may lie anywhere."""
        fault = "degenerate" if shape is None else shape_fault(shape, height, width)
        if shape is not None and fault is None:
            self.veils.append(shape)
        elif fault != "outside":
            self.unsure = True


class BoxImage:
    """An image with its objects.

    Args:
        image: the picture.
        objects: as sorted.
        segmenter: makes masks from boxes; ``None`` fills them. What has pixels of its own keeps them.
        vocabulary: categories that its labels show wherever they are.
    """

    def __init__(
        self,
        image: Picture,
        objects: Objects,
        segmenter: Segmenter | None,
        vocabulary: frozenset[int] = frozenset(),
    ) -> None:
        self.height, self.width = image.height, image.width
        self.encoded, self.extension, self.in_blocks = image.encoded, image.extension, image.in_blocks
        self._pixels, self._objects, self._segmenter = Strips(image.raster), objects, segmenter
        self._grid = Grid([shape.box for shape in objects.shapes], self.height, self.width)
        self._valid = None if image.valid is None else Strips(image.valid)
        self._vocabulary = vocabulary
        self._cut = 0
        self._made: Counter[str] = Counter()

    def cut(self, window: Window) -> SourceImage:
        """Pixels of a window and the objects in it."""
        pixels = np.ascontiguousarray(self._pixels.cut(window))
        regions = self._visible(self._regions(pixels, window), window)
        self._made.update(region.mask_from or "segmentation" for region in regions)
        near = [self._objects.shapes[number] for number in self._grid.near(window)]
        veiled = self._objects.unsure or any(one.draw(window) is not None for one in self._objects.veils)
        return SourceImage(
            pixels,
            np.zeros(pixels.shape[:2], np.int32),
            regions=regions,
            vocabulary=self._vocabulary,
            partial=frozenset(self._objects.partial),
            reaching=frozenset(shape.category_id for shape in near),
            unlabelled=window.height * window.width if veiled else 0,
        )

    def _regions(self, pixels: np.ndarray, window: Window) -> list[Region]:
        near = [self._objects.shapes[number] for number in self._grid.near(window)]
        drawn = [(shape, shape.draw(window)) for shape in near]
        inside = [(shape, region) for shape, region in drawn if region is not None]
        rough = [(shape, region) for shape, region in inside if not shape.exact]
        for _, region in rough:
            region.mask_from = "polygon"
        if self._segmenter is None or not rough:
            return [region for _, region in inside]
        masks = self._segmenter.masks(pixels, [_clip(shape, window) for shape, _ in rough])
        better: dict[int, Region] = {}
        for mask, (shape, region) in zip(masks, rough, strict=True):
            region.mask_from = "polygon: empty model mask"
            if (one := tight(shape.category_id, mask, 0, 0)) is not None:
                one.mask_from = self._segmenter.name
                better[id(region)] = one
        return [better.get(id(region), region) for _, region in inside]

    def _visible(self, regions: list[Region], window: Window) -> list[Region]:
        """What of the regions lies where the picture has data."""
        if self._valid is None:
            return regions
        valid, found = self._valid.cut(window), []
        for region in regions:
            seen = region.crop & valid[region.window]
            self._cut += bool((seen != region.crop).any())
            if (part := tight(region.category_id, seen, region.y0, region.x0)) is not None:
                part.mask_from = region.mask_from
                found.append(part)
        return found

    def count(self, counts: StageCounts) -> None:
        """Counts annotations in and out, and how the masks of the tiles were made."""
        found = self._objects
        kept, dropped = len(found.shapes), +found.dropped
        noted = {"clipped": found.clipped, "no_data": self._cut} | {
            f"mask from {k}": n for k, n in sorted(self._made.items())
        }
        counts.add("boxes", kept + dropped.total(), kept, dict(dropped), noted)
        for reason, names in found.named.items():
            counts.name("boxes", reason, names)


def _clip(shape: Shape, window: Window) -> tuple[float, float, float, float]:
    """The upright box around a shape inside a window, in the window's pixels."""
    x0, y0, x1, y1 = shape.box
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
        max_unmatched_share: share of files and rows that may match nothing.

    Attributes:
        told: what lies in the folder and matches nothing, once all items were listed.

    Raises:
        UserError: the model's folder is none.
    """

    def __init__(
        self,
        table: SourceTable,
        root: Where,
        layout: str | None,
        max_unknown_share: float,
        config: BoxConfig,
        max_unmatched_share: float = 1.0,
    ) -> None:
        self.name, self.licence, self.gsd = table.name, table.licence, table.gsd_range
        self._table, self._share, self._config = table, max_unknown_share, config
        weights = weights_fingerprint(config.model) if config.model else ""
        self.fingerprint = table.fingerprint + weights
        self._root, self._wanted, self._max_unmatched = root, layout, max_unmatched_share
        self.told = Told()
        self._categories = {row.name: row.category for row in table.classes}
        self._vocabulary = frozenset(row.category for row in table.classes if row.category)

    def items(self) -> Iterator[SourceItem]:
        """One item an image.

        Raises:
            UserError: the folder does not hold such a data set.
        """
        self.told = Told()
        return list_items(self._root, self._table, self._wanted, self.told, self._max_unmatched)

    def read(self, item: SourceItem) -> BoxImage:
        """Opens an image and its labels.

        Raises:
            UnusableImage: a missing or unreadable file, or labels of a picture of another size.
            UserError: too many objects of an unknown class.
        """
        detail = item.detail
        image_file, file = where_is(detail["image"]), where_is(detail["label"])
        if not detail["image"]:
            raise UnusableImage("missing_image", str(file), str(detail["missing"]))
        image = open_picture(image_file, self._table.rules)
        if detail["form"] == "coco":
            found = _of_coco(item, image)
        elif detail["form"] == "vector":
            found = self._of_vector(item, image, file, image_file)
        else:
            read = read_annotations(file, str(detail["form"]), image_file.name)
            frame = frame_of(image, read.size, file.name, str(image_file))
            found = [(one.name, str(n), _outliner(one, frame)) for n, one in enumerate(read, 1)]
        objects = self._sorted(found, image, file, image_file)
        segmenter = load_segmenter(self._config) if self._config.model else None
        return BoxImage(image, objects, segmenter, self._vocabulary)

    def _of_vector(
        self, item: SourceItem, image: Picture, file: Where, image_file: Where
    ) -> list[tuple[str, str, _Maker]]:
        """The objects that a vector file has where the image lies."""
        detail, only = item.detail, self._table.classes[0].name
        read = vector_objects(file, detail.get("layer"), detail.get("attribute"), image, str(image_file))
        return [(only if one.name is None else one.name, one.number, one.shape) for one in read]

    def _sorted(
        self, found: list[tuple[str, str, _Maker]], image: Picture, file: Where, image_file: Where
    ) -> Objects:
        objects, unknown = Objects(), Counter[str]()
        height, width = image.height, image.width
        for name, number, make in found:
            if name not in self._categories:
                unknown[name] += 1
                objects.unsure = True
                continue
            category = self._categories[name]
            if category is None:
                objects.dropped["ignored_class"] += 1
                objects.veil(make(0)[0], height, width)
                continue
            shape, reason = make(category)
            if shape is not None:
                reason = shape_fault(shape, height, width) or ""
            if shape is None or reason:
                objects.drop(reason, f"{file.name}, {image_file.name}: {name} {number}")
                objects.partial.add(category)
                continue
            objects.clipped += reaches_out(np.reshape(shape.box, (2, 2)), height, width)
            objects.shapes.append(shape)
        if unknown.total() > self._share * len(found):
            worst, times = unknown.most_common(1)[0]
            raise UserError(
                f"{file}: class {worst!r} ({times} objects) is not in the table of source {self.name}: add "
                "it to the classes, or raise max_unknown_share"
            )
        objects.dropped["unknown_class"] += unknown.total()
        return objects


def _outliner(one: Annotation, frame: Frame) -> _Maker:
    if one.fault is not None:
        reason = one.fault
        return lambda category: (None, reason)
    corners = turn_points(one.outline, frame.height, frame.width, frame.turn)
    corners = order(corners) if len(corners) == 4 else corners
    return lambda category: (Outline(category, corners), "")


def _of_coco(item: SourceItem, image: Picture) -> list[tuple[str, str, _Maker]]:
    """The objects that a COCO file has for an image."""
    detail = item.detail
    if "objects" not in detail:
        raise UnusableImage("missing_labels", str(detail["image"]), f"{detail['label']} does not list it")
    width, height = detail["size"] or (None, None)
    listed = None if width is None or height is None else (height, width)
    frame = frame_of(image, listed, str(detail["label"]), str(detail["image"]))
    return [
        (str(one["name"]), str(one["id"]), partial(coco_shape, one, frame=frame)) for one in detail["objects"]
    ]
