"""Benchmarks with ready triplets as sources: their images, masks and texts go into a store as they are."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipelines.build.sources.base import Refused, Source, SourceImage, SourceItem, Triplet, UnusableImage
from pipelines.build.sources.listing import Told
from pipelines.build.sources.options import options_of
from pipelines.config.building import BuildConfig
from pipelines.pictures.picture import Rules
from pipelines.pictures.remote import Where
from pipelines.store.record import BadRecord
from pipelines.triplets.base import TripletImage, TripletSource
from pipelines.triplets.layouts import LAYOUTS, open_layout
from pipelines.triplets.plain import as_plain, of_plain
from pipelines.triplets.truth import stretched_from
from unigeoseg.errors import UserError
from unigeoseg.samples.sample import Sample

#: Splits from the one that must not leak on: an image in several stays in the first of these.
_HELD_OUT = ("test", "val")
_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]*")


class ReadyOptions(BaseModel):
    """Options of a benchmark as a source (``build.source``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    turn: bool = Field(True, description="turn pictures as their EXIF orientation says")


@dataclass(frozen=True)
class _Placed:
    """An image with all its samples.

    Attributes:
        split: where it stays.
        image: the samples of that split come first, so that they keep their numbers.
        also: other splits that have samples on it.
    """

    split: str
    image: TripletImage
    also: tuple[str, ...] = ()

    def joined(self, split: str, image: TripletImage) -> "_Placed":
        """With the samples of another split on the same image."""
        if _rank(split) < _rank(self.split):
            return _Placed(split, image).joined(self.split, self.image)._with(self.also)
        merged = replace(self.image, triplets=self.image.triplets + image.triplets)
        return _Placed(self.split, merged, self.also)._with((split,))

    def _with(self, also: tuple[str, ...]) -> "_Placed":
        return replace(self, also=tuple(sorted({*self.also, *also} - {self.split})))


def _rank(split: str) -> int:
    named = (*_HELD_OUT, "", "train")
    return named.index(split) if split in named else named.index("")


class ReadySource:
    """Adapter of a :class:`~pipelines.triplets.base.TripletSource`.

    It keeps the benchmark's splits. An image with samples in several splits stays whole in the one that is
    most held out (test, then val), since a picture in both would give the held-out one away.

    Args:
        source: the reader of the layout.
    """

    keeps_splits = True
    scene = "an image of the benchmark"

    def __init__(self, source: TripletSource) -> None:
        self.name, self.licence = source.name, source.licence
        self._source = source
        self.told = Told()

    def items(self) -> Iterator[SourceItem]:
        """Every image once, with its samples; the split is the benchmark's own.

        The samples travel in the item, so that a task has those of its images alone.

        Raises:
            UserError: a split has a name that no file can have.
        """
        folder, placed = self._source.folder, self._placed()
        states, taken = folder.states(), set[str]()
        for one in placed.values():
            key = _free(one.image.key, one.split, taken)
            taken.add(key)
            # Spelled as the folder has it, so that no task needs to list the folder.
            ready = as_plain(one.image, folder.spelled)
            files = [ready["file"], *_files(ready)]
            detail: dict[str, Any] = {"files": [f"{folder.path}/{file}" for file in files], "ready": ready}
            if states is not None:
                detail["states"] = {file: states.get(file) for file in files}
            if one.also:
                detail["also"] = list(one.also)
            yield SourceItem(key, key, key, detail, one.split)
        self.told = Told(folder.told().told(len(placed)))

    def _placed(self) -> dict[str, _Placed]:
        """Images by file."""
        placed: dict[str, _Placed] = {}
        for split in self._source.splits():
            if not _SPLIT_NAME.fullmatch(split):
                raise UserError(
                    f"{self._source.folder.path} ({self._source.title}) has a split {split!r}: name it with "
                    "letters, digits, - and _ in its annotations"
                )
            for image in self._source.images(split):
                known = placed.get(image.file)
                placed[image.file] = known.joined(split, image) if known else _Placed(split, image)
        return placed

    def read(self, item: SourceItem) -> SourceImage:
        """Reads an image with all its samples.

        Raises:
            UnusableImage: the image, or all of its samples, cannot be used.
        """
        image, stretched = of_plain(item.detail["ready"]), 0
        try:
            picture = self._source.read_picture(image)
            pixels = picture.pixels()
            height, width = picture.height, picture.width
        except (BadRecord, UnusableImage) as error:
            raise UnusableImage(error.reason, image.file, error.detail) from error
        ready: list[Triplet] = []
        refused: list[Refused] = []
        for triplet in image.triplets:
            try:
                sample = self._source.read_sample(image, triplet, height, width, picture.turn)
            except BadRecord as error:
                name = f"{image.sample_id(triplet, self.name)}: {error.detail}"
                refused.append(Refused(triplet.task, error.reason, name, error.detail))
            else:
                ready.append(_triplet(sample))
                stretched += stretched_from(triplet.truth, height, width, picture.turn) is not None
        if refused and not ready:
            raise UnusableImage(refused[0].reason, image.file, refused[0].detail)
        return SourceImage(
            pixels,
            np.zeros(pixels.shape[:2], np.int32),
            encoded=picture.encoded,
            extension=picture.extension,
            triplets=ready,
            refused=refused,
            noted={"mask_stretched": stretched},
        )


def _files(ready: Mapping[str, Any]) -> list[str]:
    """What the instructions of an image are read from beside its picture."""
    named = [f for one in ready["triplets"] for f in (one["truth"].get("file"), one["text_file"]) if f]
    return list(dict.fromkeys(named))


def _free(key: str, split: str, taken: set[str]) -> str:
    """A key that is not taken: other files of other splits may have the same one."""
    name, number = key, 1
    while name in taken:
        name = f"{key}_{split}" if number == 1 else f"{key}_{split}_{number}"
        number += 1
    return name


def _triplet(s: Sample) -> Triplet:
    assert s.mask is not None
    return Triplet(
        s.task, s.subtask, s.instruction, s.mask, s.answer, s.category_id, s.category, s.box, s.points
    )


def ready_openers() -> dict[str, Callable[[Where | None, BuildConfig], Source]]:
    """What opens each layout as a source, by the layout's name."""

    def of(name: str) -> Callable[[Where | None, BuildConfig], Source]:
        def opener(root: Where | None, config: BuildConfig) -> Source:
            if root is None:
                raise UserError(f"source {name} needs --root: the folder that holds {LAYOUTS[name].expects}")
            options: ReadyOptions = options_of(ReadyOptions, name, config)
            if config.split.own is False:
                raise UserError(
                    f"split.own=false: source {name} has splits of its own, which its samples always keep; "
                    "leave the setting out"
                )
            if config.instruct.collective or config.instruct.absent:
                raise UserError(
                    f"instruct.collective and instruct.absent: source {name} has instructions of its own and "
                    "none is written; leave them out (its samples without a target are absent already)"
                )
            return ReadySource(open_layout(str(root), name, Rules(turn=options.turn)))

        return opener

    return {name: of(name) for name in LAYOUTS}
