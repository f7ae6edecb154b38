"""What a reader of triplets gives: images with their instructions, and how their masks are read."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipelines.labels.taxonomy import taxonomy
from pipelines.pictures.picture import USUAL, Picture, Rules
from pipelines.pictures.turn import UPRIGHT, turn_points
from pipelines.store.record import BadRecord
from pipelines.triplets.categories import taxonomy_id
from pipelines.triplets.folder import Folder
from pipelines.triplets.truth import Truth, decode_picture, interior_point, read_upright
from unigeoseg.errors import UserError
from unigeoseg.samples.prompts import interactive_sentence
from unigeoseg.samples.sample import Sample
from unigeoseg.tasks import ABSENT, COLLECTIVE, INTERACTIVE, REASONING

Box = tuple[float, float, float, float]
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Triplet:
    """One instruction on an image.

    Attributes:
        task: one of :data:`unigeoseg.tasks.TASKS`.
        n: counts the instructions of that task on the image.
        truth: where its mask comes from.
        instruction: empty where :meth:`TripletSource.complete` reads it with the image.
        answer: the expected reply, may be empty.
        subtask: as the data set names it; ``collective`` and ``absent`` are checked against the mask.
        category: the data set's own name, may be empty.
        box: x0, y0, x1, y1 in [0, 1] of the image (interactive).
        points: (x, y) in [0, 1] of the image (interactive).
        text_file: the file that :meth:`TripletSource.complete` reads.
        published_iou: what the data set's authors publish for their own method on this sample.
        where: file and entry that it comes from, for messages.
    """

    task: str
    n: int
    truth: Truth
    instruction: str = ""
    answer: str = ""
    subtask: str = "none"
    category: str = ""
    box: Box | None = None
    points: Points | None = None
    text_file: str = ""
    published_iou: float | None = None
    where: str = field(default="", repr=False)


@dataclass(frozen=True)
class TripletImage:
    """An image with its instructions.

    Attributes:
        key: unique in the data set; letters, digits and underscores.
        file: relative to the data set's folder.
        source: name of the data set that the image comes from.
        triplets: at least one.
    """

    key: str
    file: str
    source: str
    triplets: tuple[Triplet, ...]

    def sample_id(self, triplet: Triplet, prefix: str) -> str:
        """``<source>/<image key>/<task>/<n>``."""
        return f"{prefix}/{self.key}/{triplet.task}/{triplet.n}"


class TripletSource(ABC):
    """A reader of one layout. A small file each; registered in :mod:`pipelines.triplets.layouts`.

    Args:
        folder: as found by :meth:`find`.
        rules: how its pictures are shown.
    """

    #: What ``--layout`` and ``--source`` call it.
    name: ClassVar[str]
    #: The data set's full name.
    title: ClassVar[str]
    #: The files that it is recognised by, in words.
    expects: ClassVar[str]
    licence: ClassVar[str]
    #: Where the data set comes from.
    origin: ClassVar[str]
    #: Whether its targets are boxes (visual grounding), so that boxes are compared.
    boxes: ClassVar[bool] = False

    def __init__(self, folder: Folder, rules: Rules = USUAL) -> None:
        self.folder, self.rules = folder, rules

    @classmethod
    @abstractmethod
    def find(cls, folder: Folder) -> Folder | None:
        """The folder where the layout begins, in ``folder`` or at its usual place beneath; else ``None``."""

    @abstractmethod
    def splits(self) -> list[str]:
        """The splits that are there."""

    @abstractmethod
    def images(self, split: str) -> list[TripletImage]:
        """The images of a split in a fixed order.

        Raises:
            UserError: an annotation file is damaged, or files are missing (they are named).
        """

    def complete(self, triplet: Triplet) -> Triplet:
        """The triplet with its texts, for layouts that keep them in a file each.

        Raises:
            BadRecord: ``text`` or ``coordinates``.
        """
        return triplet

    def read_image(self, image: TripletImage) -> NDArray[np.uint8]:
        """The pixels, uint8 RGB ``[H, W, 3]``.

        Raises:
            BadRecord: ``unreadable_image``.
        """
        return self.read_picture(image).pixels()

    def read_picture(self, image: TripletImage) -> Picture:
        """The picture, with what was done to it.

        Raises:
            BadRecord: ``unreadable_image``.
        """
        return decode_picture(self.folder.read(image.file), image.file, self.rules)

    def read_sample(
        self, image: TripletImage, triplet: Triplet, height: int, width: int, turn: int = UPRIGHT
    ) -> Sample:
        """A triplet with its mask, checked.

        Args:
            image: where it belongs.
            triplet: one of the image's.
            height: of the upright picture.
            width: of the upright picture.
            turn: how the stored picture was turned to be upright; mask and prompt follow.

        Raises:
            BadRecord: with the reason.
        """
        triplet = self.complete(triplet)
        mask = read_upright(triplet.truth, self.folder, height, width, turn)
        if turn != UPRIGHT:
            triplet = _turned(triplet, turn)
        box, points, text = triplet.box, triplet.points, triplet.instruction
        category = taxonomy_id(triplet.category)
        subtask = _kind(triplet, bool(mask.any()))
        if triplet.subtask == "point" and points is None:
            points = (interior_point(mask),)
            text = interactive_sentence(points=points)
        if not text.strip():
            raise BadRecord("text", "the instruction is empty")
        return Sample(
            sample_id=image.sample_id(triplet, self.name),
            task=triplet.task,
            subtask=subtask,
            instruction=text,
            answer=triplet.answer,
            mask=mask,
            box=box,
            points=points,
            category_id=category,
            category=taxonomy()[category].name if category else triplet.category,
            source=image.source,
        )


def _kind(triplet: Triplet, target: bool) -> str:
    """The subtask of a triplet, once it is known whether its mask has a pixel.

    Questions without a target are absent ones, whatever they are called (EarthReason has such).

    Raises:
        BadRecord: ``absent_mask`` or ``empty_mask``: what is said does not fit the mask.
    """
    place = f"{triplet.where}: " if triplet.where else ""
    mask = ", ".join(triplet.truth.files()) or "the mask"
    if target:
        if triplet.subtask == ABSENT:
            raise BadRecord(
                "absent_mask",
                f"{place}said to be absent, and {mask} has pixels; empty it, or take the kind out",
            )
        return triplet.subtask
    if triplet.subtask == ABSENT or (triplet.task == REASONING and triplet.subtask != COLLECTIVE):
        return ABSENT
    sayable = triplet.where and triplet.task != INTERACTIVE
    way = '; draw it, or say "kind": "absent" where nothing is meant' if sayable else ""
    raise BadRecord("empty_mask", f"{place}{mask} has no pixel{way}")


def _turned(triplet: Triplet, turn: int) -> Triplet:
    """A triplet whose prompt follows its turned picture."""
    if triplet.box is None and triplet.points is None:
        return triplet
    if triplet.box is not None:
        x0, y0, x1, y1 = triplet.box
        ends = turn_points(np.asarray([[x0, y0], [x1, y1]]), 1.0, 1.0, turn)
        (left, top), (right, bottom) = ends.min(0).tolist(), ends.max(0).tolist()
        box = (left, top, right, bottom)
        return replace(triplet, box=box, instruction=interactive_sentence(box=box))
    turned = turn_points(np.asarray(triplet.points, np.float64), 1.0, 1.0, turn)
    points = tuple((float(x), float(y)) for x, y in turned)
    return replace(triplet, points=points, instruction=interactive_sentence(points=points))


def image_keys(files: Iterable[str]) -> dict[str, str]:
    """A key for each distinct file, in order: its path in letters, digits and underscores, made unique."""
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for file in files:
        if file in keys:
            continue
        stem = re.sub(r"[^0-9A-Za-z]+", "_", str(PurePosixPath(file).with_suffix(""))).strip("_") or "image"
        key, number = stem, 1
        while key in taken:
            number += 1
            key = f"{stem}_{number}"
        taken.add(key)
        keys[file] = key
    return keys


def grouped(pairs: Sequence[tuple[str, Triplet]], source: str, place: str = "") -> list[TripletImage]:
    """One :class:`TripletImage` a file, from (file, triplet) in order; ``place`` is left out of the keys."""
    by_file: dict[str, list[Triplet]] = {}
    for file, triplet in pairs:
        by_file.setdefault(file, []).append(triplet)
    keys = image_keys(file.removeprefix(f"{place}/") for file in by_file)
    return [
        TripletImage(key, file, source, tuple(found))
        for key, (file, found) in zip(keys.values(), by_file.items(), strict=True)
    ]


def inside(file: str, named_in: str) -> str:
    """A relative path that stays in its folder.

    Raises:
        UserError: it is absolute or leads out with ``..``.
    """
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UserError(f"{named_in} names {file!r}, which is not a path inside the data set; correct it")
    return str(path)
