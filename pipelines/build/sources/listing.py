"""Finds the images of a table's source below a folder, with their masks or label files, scenes and groups."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.build.sources.base import SourceItem
from pipelines.build.sources.patterns import compile_pattern, fill, names_of, natural
from pipelines.build.sources.table import Layout, SourceTable
from unigeoseg.errors import UserError

_KEY_LENGTH = 72


@dataclass
class Found:
    """What one layout matches: relative path of each image with the texts of its places, and label paths."""

    layout: Layout
    images: dict[str, dict[str, str]]
    labels: set[str]


def list_items(root: Path, table: SourceTable, layout: str | None) -> tuple[Layout, list[SourceItem]]:
    """The layout that fits a folder, and its images in natural order.

    An image without a mask, and a mask without an image, are listed too: reading them says what is missing.

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
    items = _items(root, chosen)
    _check_unique(table, items)
    _check_splits(table, items)
    return chosen.layout, items


def _files(root: Path) -> Iterator[str]:
    """Relative paths below a folder, hidden ones left out; links to folders are not followed."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(folder).relative_to(root).as_posix()
        for name in sorted(files):
            if not name.startswith("."):
                yield name if below == "." else f"{below}/{name}"


def _search(root: Path, layouts: list[Layout]) -> list[Found]:
    found = [Found(layout, {}, set()) for layout in layouts]
    for path in _files(root):
        for one in found:
            if match := compile_pattern(one.layout.image).fullmatch(path):
                one.images[path] = match.groupdict()
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
    patterns = " or ".join(repr(one.layout.image) for one in found)
    raise UserError(f"{root} holds no image of source {table.name}: expected {patterns} below --root")


def _items(root: Path, found: Found) -> list[SourceItem]:
    layout = found.layout
    items, claimed = [], {}
    for path in sorted(found.images, key=natural):
        values = found.images[path]
        label = fill(_labels_of(layout), values)
        own = layout.mask is not None or names_of(layout.labels or "")
        if own and label in claimed:
            raise UserError(
                f"{root}: {claimed[label]} and {path} both belong to {label}: rename or remove one of them"
            )
        claimed[label] = path
        items.append(_item(root, layout, path, label, values))
    if layout.mask is not None:
        orphans = sorted(found.labels - claimed.keys(), key=natural)
        items += [_orphan(root, path) for path in orphans if not _swallowed(path, found)]
    return items


def _swallowed(path: str, found: Found) -> bool:
    """Whether a file fits the mask pattern by accident: it is an image itself."""
    return path in found.images


def _item(root: Path, layout: Layout, path: str, label: str, values: Mapping[str, str]) -> SourceItem:
    stem = path.rpartition(".")[0] or path
    scene = fill(layout.scene, values) if layout.scene else stem
    group = fill(layout.group, values) if layout.group else scene
    detail = {"image": str(root / path), "label": str(root / label)}
    split = layout.splits.get(values.get("split", ""))
    return SourceItem(item_key(stem), scene, group, detail, split)


def _orphan(root: Path, path: str) -> SourceItem:
    stem = path.rpartition(".")[0] or path
    detail = {"image": "", "label": str(root / path)}
    return SourceItem(item_key(f"{stem}-alone"), stem, stem, detail)


def item_key(path: str) -> str:
    """A path as a key of letters, digits and underscores; a short hash keeps changed ones apart.

    Slashes, spaces, dots and hyphens become underscores. Where that, or a loss of other characters, could make
    two paths equal, six digits of the path's hash follow.
    """
    plain = re.sub(r"[ /.\-]+", "_", path).strip("_").lower()
    kept = re.sub(r"[^0-9a-z_]+", "", plain)
    if kept == path and len(kept) <= _KEY_LENGTH:
        return kept
    digits = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    return f"{kept[-_KEY_LENGTH:].strip('_') or 'image'}_{digits}"


def _check_unique(table: SourceTable, items: list[SourceItem]) -> None:
    seen: dict[str, SourceItem] = {}
    for item in items:
        if (other := seen.setdefault(item.key, item)) is not item:
            one, two = other.detail["image"], item.detail["image"]
            raise UserError(f"source {table.name}: {one} and {two} get the same key; rename one of them")


def _check_splits(table: SourceTable, items: list[SourceItem]) -> None:
    """Refuses a scene that the source itself has in two splits: its held-out scores would mean nothing."""
    seen: dict[str, SourceItem] = {}
    for item in (item for item in items if item.split is not None):
        other = seen.setdefault(item.group, item)
        if other.split != item.split:
            raise UserError(
                f"source {table.name}: scene {item.group!r} is in two splits, as {other.detail['image']} "
                f"({other.split}) and {item.detail['image']} ({item.split}): remove one of them, or take "
                "`splits` out of the table, so that scenes are split anew"
            )
