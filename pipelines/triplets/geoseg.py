"""GeoSeg-Bench and GeoSeg-1M as released (github MiliLab/UniGeoSeg, readers at commit 73abc28).

``<split>.json`` lists ``{"img", "mask", "json"}``, paths relative to its folder. The text file holds lists
``question`` and ``reason``; the first of each counts. ``/ref/`` and ``/intera/`` in the image's path name the
task, anything else is reasoning; where the relative path names none, the folder's own path decides, as in the
authors' evaluation script. An interactive sample has its coordinates in its question. Other mask values than
255 count as foreground too (the authors' reader leaves them as they are).

An entry of one's own data may also have ``"kind"``: ``"collective"`` (the mask is of all things of a kind) or
``"absent"`` (nothing of the kind is there, the mask is empty). An empty mask is refused elsewhere, but for
reasoning, where it has always meant that there is no target.
"""

import dataclasses
import json
import re
from typing import Any

from pipelines.store.record import BadRecord
from pipelines.triplets.base import Box, Points, Triplet, TripletImage, TripletSource, grouped, inside
from pipelines.triplets.folder import Folder
from pipelines.triplets.truth import MaskFile
from unigeoseg.errors import UserError
from unigeoseg.samples.prompts import parse_coordinates
from unigeoseg.tasks import ABSENT, COLLECTIVE, INTERACTIVE, REASONING, REFERRING

_SPLITS = ("train", "val", "test")
_PLACES = ("", "GeoSeg-Bench", "GeoSeg-1M")
_PARTS = ("img", "mask", "json")
#: Pairs in any brackets, with or without spaces, which the authors' pattern does not find.
_PAIR = re.compile(r"[\[(]\s*(\d*\.?\d+)\s*,\s*(\d*\.?\d+)\s*[\])]")


class GeoSegSource(TripletSource):
    """Reader of the GeoSeg release layout."""

    name = "geoseg"
    title = "GeoSeg-Bench, GeoSeg-1M"
    expects = "<split>.json, a list of {img, mask, json}"
    licence = "as released (see github MiliLab/UniGeoSeg)"
    origin = "https://github.com/MiliLab/UniGeoSeg"

    @classmethod
    def find(cls, folder: Folder) -> Folder | None:
        """Looks for a split's list whose entries have the three paths."""
        for place in _PLACES:
            inner = folder / place
            for split in _SPLITS:
                if inner.has(f"{split}.json") and _is_list(inner, split):
                    return inner
        return None

    def splits(self) -> list[str]:
        """The lists that are there."""
        return [split for split in _SPLITS if self.folder.has(f"{split}.json")]

    def images(self, split: str) -> list[TripletImage]:
        """See :meth:`TripletSource.images`."""
        name = f"{split}.json"
        counts: dict[tuple[str, str], int] = {}
        pairs, files = [], []
        for number, entry in enumerate(self.folder.read_json(name)):
            where = f"{self.folder.path}/{name}, entry {number}"
            image, mask, text = self._paths(entry, where)
            files += [image, mask, text]
            task = self._task(image)
            n = counts[image, task] = counts.get((image, task), -1) + 1
            kind = _kind(entry, task, where)
            pairs.append((image, Triplet(task, n, MaskFile(mask), subtask=kind, text_file=text, where=where)))
        self.folder.require(files, f"split {split!r}")
        return grouped(pairs, self.name)

    @staticmethod
    def _paths(entry: Any, where: str) -> tuple[str, str, str]:
        try:
            image, mask, text = (inside(entry[part], where) for part in _PARTS)
        except (TypeError, KeyError) as error:
            raise UserError(f"{where} is no {{img, mask, json}} of paths ({error!r}); correct it") from error
        return image, mask, text

    def _task(self, image: str) -> str:
        for path in (f"/{image}", f"{self.folder.path}/{image}"):
            if "/ref/" in path:
                return REFERRING
            if "/intera/" in path:
                return INTERACTIVE
            if "/reason" in path:
                return REASONING
        return REASONING

    def complete(self, triplet: Triplet) -> Triplet:
        """Reads question, answer and coordinates."""
        question, answer = first_texts(self.folder, triplet.text_file, "question", "reason")
        if triplet.task != INTERACTIVE:
            return dataclasses.replace(triplet, instruction=question, answer=answer)
        box, points = prompt_of(question)
        if box is None and points is None:
            raise BadRecord("coordinates", f"no box and no points in {question!r}")
        return dataclasses.replace(
            triplet,
            instruction=question,
            answer=answer,
            box=box,
            points=points,
            subtask="box" if box else "point",
        )


def _kind(entry: dict[str, Any], task: str, where: str) -> str:
    """The kind that an entry names, as a subtask.

    Raises:
        UserError: there is no such kind, or not of the task.
    """
    kind = entry.get("kind")
    if kind is None:
        return "none"
    if kind not in (COLLECTIVE, ABSENT):
        raise UserError(f"{where} has the kind {kind!r}: give {COLLECTIVE!r} or {ABSENT!r}, or leave it out")
    if task == INTERACTIVE:
        raise UserError(
            f"{where} has the kind {kind!r}, and is interactive: boxes and points mean what is there; "
            "leave the kind out, or put the image below /ref/ or /reason/"
        )
    return str(kind)


def first_texts(folder: Folder, file: str, question: str, answer: str) -> tuple[str, str]:
    """The first question and answer of a text file; an empty list of answers is an empty answer.

    Raises:
        BadRecord: ``text``: the file is damaged or has no question.
    """
    try:
        content = json.loads(folder.read(file))
        said = content.get(answer) or [""]
        texts = content[question][0], said[0]
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise BadRecord("text", f"{file} has no lists {question!r} and {answer!r}: {error!r}") from error
    if not all(isinstance(text, str) for text in texts):
        raise BadRecord("text", f"{file}: {question!r} and {answer!r} must hold text")
    return texts


def prompt_of(question: str) -> tuple[Box | None, Points | None]:
    """Box or points in a question: the released pattern, else any one to four pairs in brackets.

    Of the other forms two pairs after the word "box" are a box, one to three pairs are points.
    """
    box, points = parse_coordinates(question)
    if box or points:
        return box, points
    pairs = [(float(x), float(y)) for x, y in _PAIR.findall(question)]
    if len(pairs) == 2 and "box" in question.lower():
        return (*pairs[0], *pairs[1]), None
    return None, tuple(pairs) if 1 <= len(pairs) <= 3 else None


def _is_list(folder: Folder, split: str) -> bool:
    content = folder.read_json(f"{split}.json")
    return (
        isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "img" in content[0]
    )
