"""COCO's instances as labels: one JSON file for many images, each object with polygons, runs or a box.

The file is read once, when the images are listed; each image's item then carries its own objects, so that no
worker reads the file again.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pipelines.labels.shapes import Polygons, Shape, shape_of
from pipelines.pictures.place import Frame
from pipelines.pictures.remote import Where, read_text, size_of
from pipelines.pictures.spelling import folded
from pipelines.pictures.turn import turn_pixels, turn_points, turned_size
from pipelines.store.record import BadRecord
from pipelines.store.segmentation import Segmentation, parse_segmentation
from unigeoseg.errors import UserError

_LARGEST_FILE = 2 * 1024**3


@dataclass
class CocoImage:
    """An image as the file tells of it.

    Attributes:
        name: its ``file_name``, with ``/`` between folders.
        size: width and height, where both are given.
        objects: ``{"name", "segmentation", "bbox", "crowd", "id"}`` each, the class by its name.
    """

    name: str
    size: list[int] | None
    objects: list[dict[str, Any]] = field(default_factory=list)

    def detail(self, crowds: bool = False) -> dict[str, Any]:
        """What an item carries.

        Args:
            crowds: takes objects that are said to be crowds as any other.
        """
        objects = self.objects
        if crowds:
            objects = [{part: value for part, value in one.items() if part != "crowd"} for one in objects]
        return {"listed_as": self.name, "size": self.size, "objects": objects}


class CocoFile:
    """The images of a COCO file by name.

    Args:
        file: the JSON.

    Attributes:
        stray: number of objects by the ``image_id`` that no image has.

    Raises:
        UserError: it is missing, huge, damaged, or no COCO instances.
    """

    def __init__(self, file: Where) -> None:
        self.file = file
        content = _load(file)
        images = _images(content, file)
        names = {row.get("id"): str(row.get("name")) for row in _rows(content, "categories", file)}
        self.stray: Counter[str] = Counter()
        for row in _rows(content, "annotations", file):
            if (image := images.get(str(row.get("image_id")))) is None:
                self.stray[str(row.get("image_id"))] += 1
                continue
            kind = row.get("category_id")
            one = {"name": names.get(kind, f"category {kind}"), "id": row.get("id")}
            one |= {part: row[part] for part in ("segmentation", "bbox") if row.get(part)}
            image.objects.append(one | ({"crowd": True} if row.get("iscrowd") in (1, True) else {}))
        self._by_name: dict[str, CocoImage] = {}
        for image in images.values():
            known = self._by_name.setdefault(image.name, image)
            if known is not image:  # an image that is listed twice
                known.objects += image.objects
        self._by_base: dict[str, list[CocoImage]] = defaultdict(list)
        self._folded: dict[str, list[CocoImage]] = defaultdict(list)
        for image in self._by_name.values():
            self._by_base[PurePosixPath(image.name).name].append(image)
            self._folded[folded(image.name)].append(image)
        self._taken: set[str] = set()

    def take(self, path: str) -> CocoImage | None:
        """The image at a relative path, by as many of the path's folders as the file names; else ``None``.

        A ``file_name`` that begins with other folders than the path counts where no other image has its last
        part. The case of the suffix matters only where names differ in nothing else.
        """
        parts = PurePosixPath(path).parts
        tails = ["/".join(parts[n:]) for n in range(len(parts))]
        found = next((self._by_name[tail] for tail in tails if tail in self._by_name), None)
        if found is None:
            close = (self._folded.get(folded(tail), []) for tail in tails)
            found = next((images[0] for images in close if len(images) == 1), None)
        alike = self._by_base.get(parts[-1], [])
        if found is None and len(alike) == 1 and "/" in alike[0].name:
            found = alike[0]
        if found is not None:
            self._taken.add(found.name)
        return found

    def left(self) -> Iterator[CocoImage]:
        """The images that nothing took, in the file's order."""
        return (image for name, image in self._by_name.items() if name not in self._taken)


def _load(file: Where) -> dict[str, Any]:
    try:
        if size_of(file) > _LARGEST_FILE:
            raise UserError(f"{file} is larger than {_LARGEST_FILE >> 20} MB: split it by images")
        content = json.loads(read_text(file))
    except OSError as error:
        raise UserError(f"the COCO file {file} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no readable JSON ({error}): write or download it again") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{file} is no COCO file: it must be a mapping with images, annotations and categories"
        )
    return content


def _rows(content: Mapping[str, Any], name: str, file: Where) -> list[dict[str, Any]]:
    rows = content.get(name)
    if not isinstance(rows, list):
        raise UserError(f"{file} is no COCO file of instances: it has no list {name!r}")
    wrong = next((n for n, row in enumerate(rows) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise UserError(f"{file}: entry {wrong} of {name!r} is no mapping; correct it")
    return rows


def _images(content: Mapping[str, Any], file: Where) -> dict[str, CocoImage]:
    images: dict[str, CocoImage] = {}
    for number, row in enumerate(_rows(content, "images", file)):
        name = str(row.get("file_name") or "").replace("\\", "/")
        name = "/".join(part for part in name.split("/") if part not in ("", "."))
        if not name or row.get("id") is None:
            raise UserError(f"{file}: entry {number} of 'images' has no id or no file_name; correct it")
        if str(row["id"]) in images:
            raise UserError(f"{file}: two images have the id {row['id']!r}; give each its own")
        size = [row.get("width"), row.get("height")]
        known = all(isinstance(v, int | float) and v > 0 and v == int(v) for v in size)
        images[str(row["id"])] = CocoImage(name, [int(v) for v in size] if known else None)  # type: ignore[arg-type]
    return images


def coco_shape(one: Mapping[str, Any], category_id: int, frame: Frame) -> tuple[Shape | None, str]:
    """An object as a shape of an upright picture, or ``None`` and why it cannot be used.

    Without a ``segmentation`` its box is filled.

    Args:
        one: an entry of :attr:`CocoImage.objects`.
        category_id: of the taxonomy.
        frame: the picture on which it was drawn.
    """
    height, width, turn = frame.height, frame.width, frame.turn
    if one.get("crowd"):
        return None, "crowd"
    try:
        if one.get("segmentation"):
            found = parse_segmentation(one["segmentation"], height, width)
            rings = tuple(turn_points(ring, height, width, turn) for ring in found.rings)
            mask = None if found.mask is None else turn_pixels(found.mask, turn)
            seen = turned_size(height, width, turn)
            return shape_of(category_id, Segmentation(rings, mask), *seen), "degenerate"
        x, y, w, h = (float(v) for v in one["bbox"])
    except BadRecord as error:
        return None, error.reason
    except (KeyError, TypeError, ValueError):
        return None, "no_segmentation"
    corners = np.asarray([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], np.float64)
    if not np.isfinite(corners).all():
        return None, "no_segmentation"
    return Polygons(category_id, ((turn_points(corners, height, width, turn),),), exact=False), ""
