"""Who writes the referring and reasoning samples of a tile: the embedded writer, or a chat endpoint."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.build.instruct.candidates import CandidateWriter
from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import Meaning
from pipelines.build.instruct.reasoning import ask
from pipelines.build.instruct.referring import refer
from pipelines.build.instruct.turned import TurnedTile
from pipelines.build.seeds import generator
from pipelines.config.building import BuildConfig
from pipelines.labels.stages import StageCounts
from unigeoseg.tasks import REASONING, REFERRING

#: Samples of a tile: task, number in the task, place of the region, fields of the store's JSON.
Made = list[tuple[str, int, int, dict[str, Any]]]


@dataclass(frozen=True)
class Drawn:
    """A tile with the regions that the rules have drawn to be described.

    Attributes:
        name: of the tile, for all draws.
        seed: the build's.
        pixels: uint8 RGB ``[H, W, 3]``.
        facts: all regions.
        places: of the drawn ones.
    """

    name: str
    seed: int
    pixels: NDArray[np.uint8]
    facts: TileFacts
    places: list[int]


class Describer(Protocol):
    """Writes text. ``ahead`` tells how many more tiles may be begun before one is finished."""

    ahead: int

    def begin(self, tile: Drawn) -> Callable[[StageCounts], Made]:
        """Begins with a tile; the call that comes back waits for its samples and counts them."""
        ...


class EmbeddedWriter:
    """Writes from geometry and the table of roles; needs no model.

    Args:
        views: write each text for the other views of its tile as well.
    """

    ahead = 0

    def __init__(self, views: bool = False) -> None:
        self._views = views

    def begin(self, tile: Drawn) -> Callable[[StageCounts], Made]:
        """See :class:`Describer`; all the work is done in the call."""
        return lambda counts: _written(tile, counts, self._views)


EMBEDDED = EmbeddedWriter()


@contextmanager
def open_describer(config: BuildConfig, store: str, cutoff: float) -> Iterator[Describer]:
    """The endpoint if one is set, else the embedded writer.

    Args:
        config: of the build.
        store: answers are kept beside it.
        cutoff: no reasoning is paid for on tiles with fewer categories.

    Raises:
        UserError: no key for the endpoint.
    """
    if config.endpoint.model is None:
        yield EmbeddedWriter(config.instruct.views)
        return
    from pipelines.build.endpoint.stage import open_endpoint  # the client takes a second to load

    with open_endpoint(config, store, cutoff) as writer:
        yield writer


def _written(tile: Drawn, counts: StageCounts, views: bool) -> Made:
    """Referring phrases, then reasoning questions, for the drawn regions."""
    turned = TurnedTile(tile.facts, tile.name, tile.seed) if views else None

    def others(task: str, place: int, meaning: Meaning) -> dict[str, Any]:
        """The texts of the other views as a field of the sample; none where they are not asked for."""
        if turned is None:
            return {}
        texts = turned.texts(task, place, meaning)
        counts.add(task, 0, 0, noted={"views_without_text": texts.count(None)})
        return {"views": texts}

    facts, writer = tile.facts, CandidateWriter(tile.facts)
    plain = {"box": None, "points": None}
    made: Made = []
    rng = generator(tile.seed, REFERRING, tile.name)
    for i in tile.places:
        found = refer(writer, facts, i, rng)
        counts.add(REFERRING, 1, int(found is not None), {"no_unique_phrase": int(found is None)})
        if found is not None:
            fields = {"subtask": "object", "instruction": found[0], "answer": ""}
            made.append((REFERRING, len(made), i, fields | plain | others(REFERRING, i, found[1])))
    rng, first = generator(tile.seed, REASONING, tile.name), len(made)
    for i in tile.places:
        question = ask(writer, facts, i, rng)
        if isinstance(question, str):
            counts.add(REASONING, 1, 0, {question: 1})
            continue
        counts.add(REASONING, 1, 1)
        fields = {
            "subtask": question.subtask,
            "instruction": question.instruction,
            "answer": question.answer,
        }
        told = others(REASONING, i, question.meaning)
        made.append((REASONING, len(made) - first, i, fields | plain | told))
    return made
