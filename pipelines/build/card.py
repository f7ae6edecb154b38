"""``dataset.json``: what a finished store says of itself (the columns of the paper's Table 10, and more)."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.build.edition import edition
from pipelines.build.sources.base import Source
from pipelines.build.variety import Variety
from pipelines.config.building import BuildConfig
from pipelines.config.endpoint import WITHOUT_EFFECT as ENDPOINT_WITHOUT_EFFECT
from pipelines.storage.filesystem import open_filesystem
from pipelines.storage.parquet import parquet_file, read_parquet
from pipelines.store.index import coded, numbered
from pipelines.store.writer import SCHEMA_VERSION
from unigeoseg.tasks import ABSENT, COLLECTIVE, TASKS

#: Columns of texts that a card is measured from.
_NAMES = ("task", "subtask", "source", "category", "split", "licence", "scene")
#: Settings that decide how a store is built, or whether a source is refused, never the store's bytes.
_WITHOUT_EFFECT: dict[str, Any] = dict.fromkeys(
    ("workers", "block_images", "max_bad_share", "max_unknown_share", "max_unmatched_share"), True
) | {"endpoint": ENDPOINT_WITHOUT_EFFECT}


def config_hash(source: str, config: BuildConfig, fingerprint: str = "") -> str:
    """A hash of everything but the source's files that decides the store's bytes.

    That is the configuration, and the rules, sentence plans, tables and prompts of this package.

    Args:
        source: name of the source.
        config: of the build.
        fingerprint: what the source adds: its table of classes, the weights that make masks from boxes.
    """
    plain = config.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    plain["split"]["own"] = bool(plain["split"]["own"])  # left open it means no
    facts = {"source": source, "schema": SCHEMA_VERSION, "config": plain, "fingerprint": fingerprint}
    facts["edition"] = edition(config.endpoint.model is not None)
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def dataset_card(
    index: "CardRows",
    shards: list[dict[str, Any]],
    source: str,
    config: BuildConfig,
    stages: list[dict[str, Any]],
    bad: list[dict[str, str]],
    variety: Variety,
    fingerprint: str = "",
) -> dict[str, Any]:
    """The card of a finished store, from its index."""
    return measured_card(index, shards, variety) | {
        "config": config.model_dump(mode="json", exclude=_WITHOUT_EFFECT),
        "config_hash": config_hash(source, config, fingerprint),
        "stages": stages,
        "quarantined": bad,
    }


def measured_card(
    index: "pa.Table | CardRows", shards: list[dict[str, Any]], variety: Variety
) -> dict[str, Any]:
    """What index and shards of a store say, however it was made; columns are asked for one after another."""
    task, names = _coded(index, "task")
    split = _coded(index, "split")
    counts = {
        "task": _counted(task, names),
        "source": _counted(*_coded(index, "source")),
        "category": _counted(*_coded(index, "category")),
        "split": _counted(*split),
        "task_split": _by_task((task, names), split),
    } | _kinds((task, names), _coded(index, "subtask"))
    del split
    first = index.column("n").to_numpy() == 0
    words = index.column("words").to_numpy()
    instruction_words = {t: round(float(words[rows].mean()), 3) for t, rows in _of_tasks(task, names)}
    del words
    area = index.column("mask_area").to_numpy().astype(np.float64)
    height, width = index.column("height").to_numpy(), index.column("width").to_numpy()
    resolution = {"height": _spread(height[first]), "width": _spread(width[first])}
    share = height.astype(np.float64)
    share *= width
    del first, height, width
    np.divide(area, share, out=share)
    return {
        "schema_version": SCHEMA_VERSION,
        "samples": index.num_rows,
        "images": sum(s["images"] for s in shards),
        "scenes": _scenes(index),
        "counts": counts,
        "instruction_words": instruction_words,
        "instruction_variety": variety.result(),
        "mask_size": {
            "share": _spread(share),
            "pixels": _spread(area),
            "share_by_task": {t: round(float(share[rows].mean()), 6) for t, rows in _of_tasks(task, names)},
        },
        "resolution": resolution,
        "licences": _counted(*_coded(index, "licence")),
        "shards": shards,
    }


def scene_of(source: Source, config: BuildConfig) -> dict[str, Any]:
    """What a scene of a source is, and how its tiles lie; once all items were asked for.

    Returns:
        ``{"is": text, "tile", "stride", "gsd"}``: tile and stride in pixels, ``None`` where images stay
        whole; least and most metres of a pixel, ``None`` where the source does not tell.
    """
    told = getattr(source, "told", None)
    text = getattr(told, "scene", "") or getattr(source, "scene", "an image")
    whole = getattr(source, "keeps_splits", False)
    return {
        "is": text,
        "tile": None if whole else config.tile.size,
        "stride": None if whole else config.tile.stride,
        "gsd": getattr(source, "gsd", None),
    }


class CardRows:
    """The index of a store as a card needs it: each column is read when it is asked for, and held by nobody.

    Args:
        store: its folder or prefix.

    Raises:
        OSError: and what else storage raises: there is no index.
    """

    def __init__(self, store: str) -> None:
        self._filesystem, root = open_filesystem(store)
        self._filesystem.invalidate_cache()
        self._path = f"{root}/index.parquet"
        with parquet_file(self._filesystem, self._path) as file:
            self.num_rows: int = file.metadata.num_rows

    def column(self, name: str) -> pa.ChunkedArray:
        """One column; names that repeat are held once."""
        return read_parquet(self._filesystem, self._path, [name], [name] if name in _NAMES else None)[name]


def _coded(index: "pa.Table | CardRows", name: str) -> tuple[NDArray[Any], list[str]]:
    """As :func:`coded`, in numbers no wider than they must be."""
    numbers, texts = coded(index.column(name))
    return numbers.astype(np.min_scalar_type(len(texts))), texts


def _of_tasks(task: NDArray[Any], names: list[str]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The rows of each task that has any, in the order of the tasks."""
    for name in TASKS:
        if name in names and (rows := task == names.index(name)).any():
            yield name, rows


def _scenes(index: "pa.Table | CardRows") -> int:
    """How many scenes there are; those of two sources are two, whatever their names."""
    scene, scenes = numbered(index.column("scene"))
    source, sources = _coded(index, "source")
    scene += source * np.int64(len(scenes))
    if len(sources) * len(scenes) > 16 * max(1, len(scene)):
        return len(np.unique(scene))
    met = np.zeros(len(sources) * len(scenes), np.bool_)
    met[scene] = True
    return int(met.sum())


def _counted(codes: NDArray[Any], names: list[str]) -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return {name: count for name, count in sorted(zip(names, counts, strict=True)) if count}


def _by_task(
    tasks: tuple[NDArray[Any], list[str]], splits: tuple[NDArray[Any], list[str]]
) -> dict[str, dict[str, int]]:
    return {
        name: _counted(splits[0][tasks[0] == number], splits[1])
        for name, number in sorted((name, number) for number, name in enumerate(tasks[1]))
    }


def _kinds(
    tasks: tuple[NDArray[Any], list[str]], subtasks: tuple[NDArray[Any], list[str]]
) -> dict[str, dict[str, dict[str, int]]]:
    """Collective and absent samples by task, of stores that have any."""
    found = _by_task(subtasks, tasks)
    kinds = {name: found[name] for name in (COLLECTIVE, ABSENT) if found.get(name)}
    return {"kind": kinds} if kinds else {}


def _spread(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    quarter, half, three = np.quantile(values, [0.25, 0.5, 0.75])
    named = {
        "min": values.min(),
        "q25": quarter,
        "median": half,
        "q75": three,
        "max": values.max(),
        "mean": values.mean(),
    }
    return {name: round(float(value), 6) for name, value in named.items()}
