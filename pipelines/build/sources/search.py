"""Walks a source's folder and sorts its files: images and labels of a layout, and what fits none."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.build.sources.patterns import compile_pattern
from pipelines.build.sources.table import Layout, SourceTable
from pipelines.labels.unmatched import PICTURES, Unmatched
from pipelines.pictures.remote import Remote, Where
from pipelines.pictures.spelling import spellings
from pipelines.pictures.system_files import is_system_file
from pipelines.store.index import no_access
from unigeoseg.errors import UserError


@dataclass
class Found:
    """Relative paths that fit one layout, as its patterns spell them: images, and masks or label files.

    Attributes:
        layout: whose patterns.
        images: in the order of the walk.
        labels: masks or label files.
        other: files by the path that they would have, were their suffix in the case of the pattern.
        rest: what does not fit.
        states: bytes of remote files, and what tells their state from others.
        clash: a path that is not there, and several files that could be meant; ``None`` without any.
    """

    layout: Layout
    images: list[str] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    other: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    rest: Unmatched = field(default_factory=Unmatched)
    clash: tuple[str, list[str]] | None = None
    states: dict[str, list[Any]] = field(default_factory=dict)
    _spelled: dict[str, str] = field(default_factory=dict)

    def file(self, path: str) -> str:
        """How the file at a path is spelled in the folder."""
        return self._spelled.get(path, path)

    def settle(self) -> None:
        """Takes files whose suffix is in another case where none is spelled as the pattern says."""
        exact, image = set(self.images), compile_pattern(self.layout.image)
        for path, files in sorted(self.other.items()):
            if path in exact or path in self.labels:
                for file in files:
                    self.rest.add("twin_in_another_case", file)
            elif len(files) > 1:
                self.clash = self.clash or (path, files)
            else:
                self._spelled[path] = files[0]
                self.rest.note("suffix_in_another_case", files[0])
                if image.fullmatch(path):
                    self.images.append(path)
                else:
                    self.labels.add(path)
        self.other.clear()


def search(root: Where, table: SourceTable, layouts: list[Layout], aside: Unmatched) -> Found:
    """The files of the layout that fits best: the first with images and labels, else with images.

    Args:
        root: folder.
        table: of the source, for messages.
        layouts: those to try, in order.
        aside: is filled with what no layout could use.

    Raises:
        UserError: no image is found, or files clash.
    """
    found = [Found(layout) for layout in layouts]
    patterns = [(f.layout.image, f.layout.mask or f.layout.labels or "") for f in found]
    exact = [[compile_pattern(p) for p in pair] for pair in patterns]
    loose = [[re.compile(p.pattern, re.IGNORECASE) for p in pair] for pair in exact]
    states: dict[str, list[Any]] = {}
    for path in _files(root, aside, states):
        for number, one in enumerate(found):
            image, label = exact[number]
            if image.fullmatch(path):
                one.images.append(path)
            elif label.fullmatch(path):
                one.labels.add(path)
            elif not any(pattern.fullmatch(path) for pattern in loose[number]):
                one.rest.add_file(path)
            elif (spelled := _spelled(path, patterns[number], exact[number])) is not None:
                one.other[spelled].append(path)
            else:
                one.rest.add("path_in_another_case", path)
    chosen = _choose(root, table, found)
    chosen.states = states
    if chosen.clash is not None:
        path, files = chosen.clash
        raise UserError(
            f"{root}: {' and '.join(files)} differ in the case of their suffix alone, and none is spelled "
            f"{path.rpartition('/')[2]!r}: rename the one that is meant, or remove the other"
        )
    return chosen


def _spelled(path: str, patterns: tuple[str, str], compiled: list[re.Pattern[str]]) -> str | None:
    """The path with its suffix in the case that one of the patterns asks for."""
    for pattern, fits in zip(patterns, compiled, strict=True):
        for one in spellings(path, pattern):
            if fits.fullmatch(one):
                return one
    return None


def _files(root: Where, aside: Unmatched, states: dict[str, list[Any]]) -> Iterator[str]:
    """Relative paths below a folder, no hidden and no system files."""
    for path in _remote_files(root, states) if isinstance(root, Remote) else _local_files(root, aside):
        if any(is_system_file(part) for part in path.split("/")):
            aside.add("system_file", path)
        else:
            yield path


def _remote_files(root: Remote, states: dict[str, list[Any]]) -> Iterator[str]:
    try:
        for path, size, mark in root.files():
            if mark:
                states[path] = [size, mark]
            yield path
    except FileNotFoundError as error:
        raise UserError(f"--root {root}: no such folder") from error
    except OSError as error:
        raise UserError(no_access(str(root), error)) from error


def _local_files(root: Path, aside: Unmatched) -> Iterator[str]:
    """Links to folders are not followed."""
    for folder, folders, files in os.walk(root):
        below = Path(folder).relative_to(root).as_posix()
        place = "" if below == "." else f"{below}/"
        folders[:] = sorted(name for name in folders if not is_system_file(name))
        for name in folders:
            if (Path(folder) / name).is_symlink():
                aside.add("link_to_folder", f"{place}{name}")
            elif name.lower().endswith(PICTURES):
                aside.add("folder_named_as_picture", f"{place}{name}")
        yield from (f"{place}{name}" for name in sorted(files))


def _choose(root: Where, table: SourceTable, found: list[Found]) -> Found:
    """What is spelled as the table says goes before what is not."""
    exact = next((one for one in found if one.images and one.labels), None)
    for one in found:
        one.settle()
    if exact is not None:
        return exact
    for test in (lambda f: f.images and f.labels, lambda f: f.images or f.clash):
        for one in found:
            if test(one):
                return one
    wanted = table.expects or " or ".join(one.layout.image for one in found)
    raise UserError(f"{root} holds no image of source {table.name}: --root must hold {wanted}")
