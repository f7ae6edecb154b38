"""Finds the images of a table's source below a folder, with their masks or label files, scenes and groups."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.build.sources.base import SourceItem
from pipelines.build.sources.coco import CocoFile
from pipelines.build.sources.patterns import compile_pattern, fill, names_of, natural
from pipelines.build.sources.table import Layout, SourceTable
from pipelines.pictures.system_files import is_system_file
from unigeoseg.errors import UserError

_KEY_LENGTH = 72
#: Forms of label files that hold the objects of many images.
_OF_MANY = ("csv", "coco")


@dataclass
class Found:
    """Relative paths that fit one layout: images, and masks or label files."""

    layout: Layout
    images: list[str]
    labels: set[str]


def list_items(root: Path, table: SourceTable, layout: str | None) -> Iterator[SourceItem]:
    """The images of a folder in natural order, by the layout that fits.

    An image without a mask, and a mask without an image, are listed too: reading them says what is missing.
    What is held in memory are the paths.

    Args:
        root: folder.
        table: where files may lie.
        layout: name of the layout to take; ``None`` takes the first that finds images and labels.

    Raises:
        UserError: no image is found, two images claim one mask, a scene is in two of the source's splits.
    """
    if layout is not None and layout not in [known.name for known in table.layouts]:
        names = ", ".join(known.name for known in table.layouts)
        raise UserError(f"source {table.name} has no layout {layout!r}: choose from {names}")
    wanted = [known for known in table.layouts if layout in (None, known.name)]
    chosen = _choose(root, table, _search(root, wanted))
    return _items(root, table, chosen)


def _files(root: Path) -> Iterator[str]:
    """Relative paths below a folder, no hidden and no system files; links to folders are not followed."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_system_file(name))
        below = Path(folder).relative_to(root).as_posix()
        for name in sorted(files):
            if not is_system_file(name):
                yield name if below == "." else f"{below}/{name}"


def _search(root: Path, layouts: list[Layout]) -> list[Found]:
    found = [Found(layout, [], set()) for layout in layouts]
    for path in _files(root):
        for one in found:
            if compile_pattern(one.layout.image).fullmatch(path):
                one.images.append(path)
            elif compile_pattern(_labels_of(one.layout)).fullmatch(path):
                one.labels.add(path)
    return found


def _labels_of(layout: Layout) -> str:
    return layout.mask or layout.labels or ""


def _choose(root: Path, table: SourceTable, found: list[Found]) -> Found:
    for test in (lambda f: f.images and f.labels, lambda f: f.images):
        for one in found:
            if test(one):
                return one
    wanted = table.expects or " or ".join(one.layout.image for one in found)
    raise UserError(f"{root} holds no image of source {table.name}: --root must hold {wanted}")


def _items(root: Path, table: SourceTable, found: Found) -> Iterator[SourceItem]:
    layout, pattern = found.layout, compile_pattern(found.layout.image)
    own = layout.mask is not None or (bool(names_of(layout.labels or "")) and layout.boxes not in _OF_MANY)
    coco: dict[str, CocoFile] = {}
    claimed: dict[str, str] = {}
    splits: dict[str, tuple[str, str]] = {}
    for path in sorted(found.images, key=natural):
        match = pattern.fullmatch(path)
        assert match is not None
        label = fill(_labels_of(layout), match.groupdict())
        if own and claimed.setdefault(label, path) != path:
            raise UserError(
                f"{root}: {claimed[label]} and {path} both belong to {label}: rename or remove one of them"
            )
        more: Mapping[str, Any] = {}
        if layout.boxes == "coco":
            if label not in coco:
                coco[label] = CocoFile(root / label)
            listed = coco[label].take(path)
            more = listed.detail if listed else {}
        item = _item(root, layout, path, label, match.groupdict(), more)
        if item.split is not None:
            _check_split(table, item, splits)
        yield item
    if layout.mask is not None:
        for path in sorted(found.labels - claimed.keys(), key=natural):
            yield _orphan(root, layout, path)
    for label, file in coco.items():
        yield from _coco_orphans(file, root, label)


def _coco_orphans(file: CocoFile, root: Path, label: str) -> Iterator[SourceItem]:
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
    root: Path, layout: Layout, path: str, label: str, values: Mapping[str, str], more: Mapping[str, Any]
) -> SourceItem:
    stem = path.rpartition(".")[0] or path
    scene = fill(layout.scene, values) if layout.scene else stem
    group = fill(layout.group, values) if layout.group else scene
    detail: dict[str, Any] = {"image": str(root / path), "label": str(root / label), "form": _form(layout)}
    detail |= more
    if layout.threshold is not None:
        detail["threshold"] = layout.threshold
    split = layout.splits.get(values.get("split", ""))
    key = item_key(fill(layout.key, values) if layout.key else stem)
    return SourceItem(key, scene, group, detail, split)


def _form(layout: Layout) -> str:
    return layout.boxes or layout.encoding


def _orphan(root: Path, layout: Layout, path: str) -> SourceItem:
    stem = path.rpartition(".")[0] or path
    detail = {"image": "", "label": str(root / path), "form": _form(layout)}
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
