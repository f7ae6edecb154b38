"""Parts of a map, computed in this process or by actors of Ray Data; the same :class:`Mapper` either way.

Actors open a raster themselves, when the first of its parts comes, so that numbers of parts go out and only
finished parts, packed, come back.
"""

import logging
import pickle
import warnings
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch

from pipelines.evaluate.models import best_device
from pipelines.maps.compute import Mapper
from pipelines.maps.planning import Sheet, Sheets
from pipelines.maps.work import Part
from unigeoseg.segmenter import Segmenter, load

logger = logging.getLogger(__name__)

#: How often a part is tried before it is left, and a lost actor's parts are given to another one.
TRIES = 2
#: Blocks of Ray Data; many parts share one.
_MOST_BLOCKS = 2_000
#: Rasters that an actor holds open.
_OPEN = 8

#: A raster's place among those of the map, and a part's number in it.
Key = tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """What became of a part.

    Attributes:
        sheet: place of its raster among those of the map.
        number: of the block or prompt.
        part: computed; ``None``: it failed.
        reason: why it failed.
    """

    sheet: int
    number: int
    part: Part | None
    reason: str = ""


Outcomes: TypeAlias = Generator[Outcome, None, None]


def computed_here(sheets: Sheets, segmenter: Segmenter, keys: Sequence[Key]) -> Outcomes:
    """Computes parts one after another in this process."""
    held = _Mappers(sheets, lambda: segmenter)
    for sheet, number in keys:
        yield held.compute(sheet, number)


def computed_on_ray(
    sheets: Sheets, keys: Sequence[Key], workers: tuple[int, int], cpus: float, gpus: float
) -> Outcomes:
    """Computes parts on actors of the connected Ray cluster, in whatever order they finish.

    A part whose actor died is tried by another one; what is left then is tried on actors that hold one part
    at a time, so that no part is told as failed because another one, beside it, ended their actor.

    Args:
        sheets: the map.
        keys: of the parts.
        workers: fewest and most actors; between them their number follows the work and the cluster's room.
        cpus: of an actor.
        gpus: of an actor.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.util.annotations import RayDeprecationWarning

    context = DataContext.get_current()
    before = context.max_errored_blocks, context.enable_progress_bars
    context.max_errored_blocks, context.enable_progress_bars = -1, False  # told by us, below and on stderr
    try:
        packed = ray.put([pickle.dumps(sheet) for sheet in sheets.sheets])
        rows = [{"sheet": sheet, "number": number} for sheet, number in keys]
        built = sheets.without_sheets(), [packed], max(1, int(cpus))
        fewest, most = (max(1, min(count, len(rows))) for count in workers)
        blocks = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MOST_BLOCKS))
        with warnings.catch_warnings():
            # This version has no other way to say that a part which kills its actor is not tried for ever.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            done = blocks.map_batches(
                _Actor,
                fn_constructor_args=built,
                batch_size=1,
                compute=ActorPoolStrategy(min_size=fewest, max_size=most),
                num_cpus=cpus,
                num_gpus=gpus,
                max_task_retries=TRIES - 1,
            )
        left = set(keys)
        for batch in done.iter_batches(batch_size=1, prefetch_batches=0, batch_format="pyarrow"):
            outcome: Outcome = pickle.loads(zlib.decompress(batch["outcome"][0].as_py()))
            left.discard((outcome.sheet, outcome.number))
            yield outcome
        yield from _one_at_a_time(_Actor, built, sorted(left), most, cpus, gpus)
    finally:
        context.max_errored_blocks, context.enable_progress_bars = before


def _one_at_a_time(
    kind: type["_Actor"], built: tuple[Any, ...], keys: Sequence[Key], most: int, cpus: float, gpus: float
) -> Iterator[Outcome]:
    """Tries parts that were left, each alone on its actor; one that ends it is told, the next has another."""
    import ray
    from ray.exceptions import RayActorError

    remote = ray.remote(num_cpus=cpus, num_gpus=gpus)(kind)
    waiting, idle = list(reversed(keys)), list[Any]()
    running: dict[Any, tuple[Any, Key]] = {}
    while waiting or running:
        while waiting and len(running) < most:
            key = waiting.pop()
            actor = idle.pop() if idle else remote.remote(*built)
            running[actor.alone.remote(*key)] = actor, key
        (ready,), _ = ray.wait(list(running), num_returns=1)
        actor, key = running.pop(ready)
        try:
            outcome = ray.get(ready)
        except RayActorError:
            outcome = Outcome(*key, None, "its worker ended each time (out of memory?)")
        else:
            idle.append(actor)
        yield outcome


class _Actor:
    """Computes parts of any raster of a map; the class behind Ray Data's actors."""

    def __init__(self, sheets: Sheets, packed: list[Any], threads: int) -> None:
        import ray

        torch.set_num_threads(threads)
        self._held = _Mappers(sheets, lambda: load(sheets.model, best_device()), ray.get(packed[0]))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        found = [
            self._held.compute(int(sheet), int(number))
            for sheet, number in zip(batch["sheet"], batch["number"], strict=True)
        ]
        return {"outcome": [zlib.compress(pickle.dumps(outcome), 1) for outcome in found]}

    def alone(self, sheet: int, number: int) -> Outcome:
        """Computes one part."""
        return self._held.compute(sheet, number)


class _Mappers:
    """What computes the parts of each raster, some of them open at once."""

    def __init__(
        self, sheets: Sheets, load: Callable[[], Segmenter], packed: Sequence[bytes] | None = None
    ) -> None:
        self._sheets, self._load, self._packed = sheets, load, packed
        self._open: dict[int, tuple[Sheet, Mapper]] = {}

    @cached_property
    def _segmenter(self) -> Segmenter:
        """Loaded with the first part: what is wrong with the model on one machine is told with that part."""
        return self._load()

    def compute(self, sheet: int, number: int) -> Outcome:
        """Tries to compute a part; whatever is wrong with it, the others can be made."""
        reason = ""
        for attempt in range(TRIES):
            try:
                return Outcome(sheet, number, self._compute(sheet, number))
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                logger.warning("part %d, attempt %d: %s", number, attempt + 1, reason)
        return Outcome(sheet, number, None, reason)

    def _compute(self, sheet: int, number: int) -> Part:
        at, mapper = self._opened(sheet)
        if at.prompts is not None:
            return mapper.prompt(at.prompts.by_number[number])
        return mapper.block(*divmod(number, at.grid.blocks[1]))

    def _opened(self, sheet: int) -> tuple[Sheet, Mapper]:
        if sheet not in self._open:
            while len(self._open) >= _OPEN:
                del self._open[next(iter(self._open))]
            at: Sheet = (
                self._sheets.sheets[sheet] if self._packed is None else pickle.loads(self._packed[sheet])
            )
            self._open[sheet] = at, self._mapper(at)
        return self._open[sheet]

    def _mapper(self, at: Sheet) -> Mapper:
        sheets = self._sheets
        return Mapper(
            self._segmenter,
            at.scene,
            at.grid,
            sheets.threshold,
            sheets.question,
            at.area,
            sheets.request.batch,
            sheets.rule,
        )
