"""Which samples a plan draws: an index without the rows that filters leave out, each step told."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.config import Config
from pipelines.config.data import SampleFilter
from pipelines.plan.units import PlanIndex
from pipelines.plan.visible import Kept, visible
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASK_IDS, TASKS

log = logging.getLogger(__name__)
#: What each kind of criterion reads of the index.
_COLUMNS = {
    "area": ("mask_area", "height", "width"),
    "fill": ("mask_area", "box_area"),
    "subtasks": ("subtask",),
    "categories": ("category_id", "category"),
    "sources": ("source",),
}
_NAMED = 8


@dataclass(frozen=True)
class Chosen:
    """An index as filters leave it.

    Attributes:
        index: the rows that stay.
        emptied: by task that lost its last sample, which filter took it and how many had remained, in words.
    """

    index: PlanIndex
    emptied: dict[int, str] = field(default_factory=dict)

    def require(self, tasks: Sequence[int]) -> None:
        """Refuses filters that leave nothing of a task that is to be drawn.

        Raises:
            UserError: names the filter, and how many samples it found.
        """
        for task in tasks:
            if task in self.emptied:
                raise UserError(
                    f"{self.emptied[task]}; loosen it, keep {TASKS[task]} out of it with its `tasks`, or "
                    "give the task no share (pts.base, pts.warmup)"
                )


def chosen_samples(index: PlanIndex, config: Config) -> Chosen:
    """The samples that a run draws: ``data.min_pixels``, ``data.filters``, sources with a share.

    Raises:
        UserError: the index does not tell what is asked, or a filter names what the store does not have.
    """
    chosen = filtered(visible(index, config), config.data.filters, "data.filters")
    if not config.data.source_shares:
        return chosen
    shares, key = config.data.source_shares, "data.source_shares"
    check_sources(chosen.index, shares, key)
    unwanted = [name for name, share in shares.items() if not share]
    if not unwanted:
        return chosen
    tasks, emptied = chosen.index.tasks.copy(), dict(chosen.emptied)
    codes, names = sources_of(chosen.index, key)
    out = (tasks >= 0) & np.isin(codes, [i for i, name in enumerate(names) if name in unwanted])
    _leave_out(f"{key}, 0 for {', '.join(unwanted)},", out, tasks, emptied, chosen.index)
    return Chosen(Kept(chosen.index, tasks), emptied)


def check_sources(index: PlanIndex, shares: Mapping[str, float], key: str) -> None:
    """Refuses shares by source that leave a source of the index out of account, or name one without samples.

    Raises:
        UserError: with the names.
    """
    codes, names = sources_of(index, key)
    counts = np.bincount(codes[index.tasks >= 0], minlength=len(names)).tolist()
    there = {name: count for name, count in zip(names, counts, strict=True) if count}
    for name, share in shares.items():
        if share and name not in there:
            raise UserError(
                f"{key}: no sample that the filters leave has source {name!r}; {near(name, [*there])}"
            )
    if missing := [name for name in there if name not in shares]:
        raise UserError(
            f"{key} says nothing of {', '.join(missing)} ({sum(there[name] for name in missing)} samples): "
            "give each a share; 0 leaves it out"
        )


def sources_of(index: PlanIndex, key: str) -> tuple[NDArray[np.int64], list[str]]:
    """The source of each row as a number, int64 ``[N]``, and the names of the numbers.

    ``key`` is the setting that asks.

    Raises:
        UserError: the index does not tell.
    """
    found = pc.dictionary_encode(_table(index, "sources", key)["source"]).unify_dictionaries()
    names = found.chunk(0).dictionary.to_pylist() if found.num_chunks else []
    parts = [np.asarray(part.indices) for part in found.chunks]
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64), names


def filtered(index: PlanIndex, filters: Sequence[SampleFilter], where: str) -> Chosen:
    """The index without what does not pass all ``filters``; row numbers stay those of the whole.

    Args:
        index: whole, or filtered already.
        filters: of the configuration.
        where: their dotted key, for messages.

    Raises:
        UserError: the index does not tell what is asked, or a filter names what the store does not have.
    """
    if not filters:
        return Chosen(index)
    tasks = index.tasks.copy()
    emptied: dict[int, str] = {}
    for i, one in enumerate(filters):
        meant = np.isin(tasks, [TASK_IDS[name] for name in one.tasks or TASKS])
        for criterion, passes in _criteria(one, index, f"{where}[{i}]"):
            _leave_out(criterion, meant & (tasks >= 0) & ~passes, tasks, emptied, index)
    return Chosen(Kept(index, tasks), emptied)


def _leave_out(
    criterion: str,
    out: NDArray[np.bool_],
    tasks: NDArray[np.int8],
    emptied: dict[int, str],
    index: PlanIndex,
) -> None:
    """Takes the rows ``out`` from ``tasks``, and notes in ``emptied`` whose last ones they were."""
    before, first = _counts(tasks), index.counts()
    tasks[out] = -1
    log.info("%s: %d of %d samples are left out", criterion, int(out.sum()), sum(before))
    for t, left in enumerate(_counts(tasks)):
        if before[t] and not left:
            emptied[t] = (
                f"{criterion} leaves no {TASKS[t]} sample of the {before[t]} that remained before it "
                f"(of {first[t]} in split {index.split!r} of {index.store})"
            )


def _criteria(one: SampleFilter, index: PlanIndex, where: str) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each criterion of a filter in words, and which rows pass it."""
    for name in ("area", "fill"):
        least, most = getattr(one, f"min_{name}"), getattr(one, f"max_{name}")
        if least is None and most is None:
            continue
        share, region = _shares(name, index, where)
        if least is not None:
            yield f"{where}.min_{name}={least:g}", ~region | (share >= least)
        if most is not None:
            yield f"{where}.max_{name}={most:g}", ~region | (share <= most)
    for name in ("subtasks", "categories", "sources"):
        if wanted := getattr(one, name):
            key = f"{where}.{name}"
            yield f"{key}={list(wanted)}", _among(wanted, _table(index, name, key), _COLUMNS[name], key)


def _shares(name: str, index: PlanIndex, where: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of each row the share that its region has of picture or box, and whether it has a region."""
    table = _table(index, name, f"{where}.min_{name}")
    area, *sides = (table[column].to_numpy().astype(np.float64) for column in _COLUMNS[name])
    return area / np.maximum(np.prod(sides, axis=0), 1.0), area > 0


def _among(
    wanted: Sequence[int | str], table: pa.Table, columns: Sequence[str], key: str
) -> NDArray[np.bool_]:
    """Which rows have one of the values: numbers in the first column, texts in the last."""
    found = np.zeros(len(table), np.bool_)
    for value in wanted:
        column = table[columns[0] if isinstance(value, int) else columns[-1]]
        rows = np.asarray(pc.equal(column, pa.scalar(value, column.type)).to_numpy(), np.bool_)
        if not rows.any():
            raise UserError(f"{key}: no sample has {value!r}; {near(value, pc.unique(column).to_pylist())}")
        found |= rows
    return found


def near(value: int | str, there: list[Any]) -> str:
    """In words, what of ``there`` comes near a value that is not among it."""
    names = sorted(str(one) for one in there)
    close = get_close_matches(str(value), names, n=1, cutoff=0.5)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    listed = f"there are {', '.join(names[:_NAMED])}{more}"
    return f"did you mean {close[0]}? {listed[0].upper()}{listed[1:]}" if close else listed


def _table(index: PlanIndex, name: str, key: str) -> pa.Table:
    table = getattr(index, "table", None)
    missing = [c for c in _COLUMNS[name] if table is None or c not in table.column_names]
    if missing:
        raise UserError(
            f"{key}: the index of {index.store} lacks {' and '.join(missing)}; leave the setting out, or "
            "build the store anew"
        )
    return table


def _counts(tasks: NDArray[np.int8]) -> list[int]:
    return [int((tasks == t).sum()) for t in range(len(TASKS))]
