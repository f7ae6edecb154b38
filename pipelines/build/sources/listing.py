"""Finds the images of a table's source below a folder, with their masks or label files, scenes and groups."""

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.build.sources.base import SourceItem
from pipelines.build.sources.coco import CocoFile
from pipelines.build.sources.patterns import compile_pattern, fill, names_of, natural
from pipelines.build.sources.search import Found, search
from pipelines.build.sources.table import Layout, SourceTable
from pipelines.labels.stages import StageCounts
from pipelines.labels.unmatched import Unmatched, csv_ids
from pipelines.pictures.remote import Where, read_text
from unigeoseg.errors import UserError

_KEY_LENGTH = 72
#: Forms of label files that hold the objects of many images.
_OF_MANY = ("csv", "coco", "vector")


@dataclass
class Told:
    """What a listing tells beside its items, once all of them were taken."""

    files: StageCounts = field(default_factory=StageCounts)
    scene: str = ""


def list_items(
    root: Where, table: SourceTable, layout: str | None, told: Told | None = None, max_unmatched: float = 1.0
) -> Iterator[SourceItem]:
    """The images of a folder in natural order, by the layout that fits.

    An image without a mask, and a mask without an image, are listed too: reading them says what is missing.
    What is held in memory are the paths.

    Args:
        root: folder.
        table: where files may lie.
        layout: name of the layout to take; ``None`` takes the first that finds images and labels.
        told: is filled with what matches nothing.
        max_unmatched: share of files and rows that may match nothing.

    Raises:
        UserError: no image is found, two images claim one mask, a scene is in two of the source's splits, or
            too much matches nothing.
    """
    if layout is not None and layout not in [known.name for known in table.layouts]:
        names = ", ".join(known.name for known in table.layouts)
        raise UserError(f"source {table.name} has no layout {layout!r}: choose from {names}")
    wanted = [known for known in table.layouts if layout in (None, known.name)]
    aside = Unmatched()
    chosen = search(root, table, wanted, aside)
    aside.add_all(chosen.rest)
    return _items(root, table, chosen, aside, told or Told(), max_unmatched)


def _labels_of(layout: Layout) -> str:
    return layout.mask or layout.labels or ""


def _items(
    root: Where, table: SourceTable, found: Found, aside: Unmatched, told: Told, max_unmatched: float
) -> Iterator[SourceItem]:
    layout, pattern = found.layout, compile_pattern(found.layout.image)
    own = layout.mask is not None or (bool(names_of(layout.labels or "")) and layout.boxes not in _OF_MANY)
    claimed: dict[str, str] = {}
    coco: dict[str, CocoFile] = {}
    splits: dict[str, tuple[str, str]] = {}
    for path in sorted(found.images, key=natural):
        match = pattern.fullmatch(path)
        assert match is not None
        label = fill(_labels_of(layout), match.groupdict())
        if claimed.setdefault(label, path) != path and own:
            raise UserError(
                f"{root}: {claimed[label]} and {path} both belong to {label}: rename or remove one of them"
            )
        more = _of_coco(root, found, label, path, coco)
        item = _item(root, found, path, label, match.groupdict(), more)
        if item.split is not None:
            _check_split(table, item, splits)
        yield item
    alone = sorted(found.labels - claimed.keys(), key=natural)
    if layout.mask is not None:
        yield from (_orphan(root, found, path) for path in alone)
    else:
        for path in alone:
            aside.add("label_without_picture", found.file(path))
    for label, file in coco.items():
        yield from _coco_orphans(file, root, found.file(label))
    if layout.boxes == "csv":
        names = {found.file(path).rpartition("/")[2] for path in found.images}
        _tell_rows(root, sorted(found.file(label) for label in claimed), names, aside)
    told.scene = _scene_words(layout)
    used = len(found.images) + len(found.labels & claimed.keys())
    told.files.merge(aside.told(used).rows())
    aside.check(used, max_unmatched, root)


def _scene_words(layout: Layout) -> str:
    """What a scene of a layout is."""
    scene = f"all files of one {layout.scene}" if layout.scene else "a file"
    return f"{scene}; a split keeps one {layout.group} together" if layout.group else scene


def _of_coco(
    root: Where, found: Found, label: str, path: str, files: dict[str, CocoFile]
) -> Mapping[str, Any]:
    """What a COCO file has of an image; each file is read once."""
    if found.layout.boxes != "coco":
        return {}
    if label not in files:
        files[label] = CocoFile(root / found.file(label))
    listed = files[label].take(found.file(path))
    return listed.detail(found.layout.crowds) if listed else {}


def _tell_rows(root: Where, labels: list[str], pictures: set[str], aside: Unmatched) -> None:
    for label in labels:
        try:
            rows = csv.DictReader(io.StringIO(read_text(root / label)))
            ids = [str(row.get("image_id")) for row in rows]
        except (OSError, UnicodeDecodeError, csv.Error):
            continue  # reading the images says so
        csv_ids(ids, pictures, aside, label)


def _coco_orphans(file: CocoFile, root: Where, label: str) -> Iterator[SourceItem]:
    """What a COCO file lists without a picture: reading them says so."""
    missing = [(image.name, f"{image.name!r} is not there") for image in file.left()]
    if file.stray:
        first, number = next(iter(file.stray)), file.stray.total()
        text = f"{number} annotations belong to image ids that it does not list, the first is {first}"
        missing.append(("ids", text))
    for name, text in missing:
        scene = f"{label}-{name}-alone"
        detail = {"image": "", "label": str(root / label), "form": "coco", "missing": text}
        yield SourceItem(item_key(scene), scene, scene, detail)


def _item(
    root: Where, found: Found, path: str, label: str, values: Mapping[str, str], more: Mapping[str, Any]
) -> SourceItem:
    layout = found.layout
    stem = path.rpartition(".")[0] or path
    scene = fill(layout.scene, values) if layout.scene else stem
    group = fill(layout.group, values) if layout.group else scene
    detail: dict[str, Any] = {"image": str(root / found.file(path)), "label": str(root / found.file(label))}
    detail |= {"form": _form(layout), **more}
    detail |= {name: value for name in ("attribute", "layer") if (value := getattr(layout, name)) is not None}
    if label.lower().endswith(".shp"):  # what its objects are, and where, stands beside it
        detail["files"] = [f"{detail['label'][:-4]}{end}" for end in (".dbf", ".prj")]
    states = {"image": found.states.get(found.file(path)), "label": found.states.get(found.file(label))}
    if any(states.values()):
        detail["states"] = states
    if layout.threshold is not None:
        detail["threshold"] = layout.threshold
    split = layout.splits.get(values.get("split", ""))
    key = item_key(fill(layout.key, values) if layout.key else stem)
    return SourceItem(key, scene, group, detail, split)


def _form(layout: Layout) -> str:
    return layout.boxes or layout.encoding


def _orphan(root: Where, found: Found, path: str) -> SourceItem:
    stem = path.rpartition(".")[0] or path
    detail = {"image": "", "label": str(root / found.file(path)), "form": _form(found.layout)}
    return SourceItem(item_key(f"{stem}-alone"), stem, stem, detail)


def item_key(path: str) -> str:
    """A path as a key of letters, digits and underscores.

    Slashes, dots and hyphens become underscores. Six digits of the path's hash follow where anything else is
    lost (spaces, accents, other scripts, length), so that the key is the same whatever lies beside the file.
    """
    plain = re.sub(r"[/.\-]+", "_", path).strip("_")
    kept = re.sub(r"[^0-9A-Za-z_]+", "", re.sub(r"\s+", "_", plain))
    if kept == plain and 0 < len(kept) <= _KEY_LENGTH:
        return kept
    digits = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    return f"{kept[-_KEY_LENGTH:].strip('_') or 'image'}_{digits}"


def _check_split(table: SourceTable, item: SourceItem, seen: dict[str, tuple[str, str]]) -> None:
    """Refuses a scene that the source itself has in two splits: its held-out scores would mean nothing."""
    image, split = str(item.detail["image"]), str(item.split)
    other, its = seen.setdefault(item.scene, (image, split))
    if its != split:
        raise UserError(
            f"source {table.name}: scene {item.scene!r} is in two splits, as {other} ({its}) and {image} "
            f"({split}): remove one of them, or take `splits` out of the table, so that scenes are split anew"
        )
