"""``dataset.json``: what a finished store says of itself (the columns of the paper's Table 10, and more)."""

import hashlib
import json
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
from pipelines.storage.parquet import read_parquet
from pipelines.store.index import coded
from pipelines.store.writer import SCHEMA_VERSION
from unigeoseg.tasks import ABSENT, COLLECTIVE, TASKS

#: Columns of an index that a card is measured from: texts, and numbers.
_NAMES = ("task", "subtask", "source", "category", "split", "licence", "scene")
_NUMBERS = ("n", "mask_area", "height", "width", "words")
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
    index: pa.Table,
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


def measured_card(index: pa.Table, shards: list[dict[str, Any]], variety: Variety) -> dict[str, Any]:
    """What index and shards of a store say, however it was made; :func:`card_rows` has all it needs."""
    columns = {name: coded(index.column(name)) for name in _NAMES}
    task, names = columns["task"]
    (source, _), (scene, scenes) = columns["source"], columns["scene"]
    tasks = np.asarray([TASKS.index(name) for name in names], np.int64)[task]
    area = index.column("mask_area").to_numpy().astype(np.float64)
    height, width = (index.column(n).to_numpy().astype(np.float64) for n in ("height", "width"))
    share = area / (height * width)
    words = index.column("words").to_numpy().astype(np.float64)
    first = index.column("n").to_numpy() == 0
    of = {name: rows for number, name in enumerate(TASKS) if (rows := tasks == number).any()}
    return {
        "schema_version": SCHEMA_VERSION,
        "samples": index.num_rows,
        "images": sum(s["images"] for s in shards),
        "scenes": len(np.unique(source * (len(scenes) + 1) + scene)),
        "counts": {name: _counted(*columns[name]) for name in ("task", "source", "category", "split")}
        | {"task_split": _by_task(columns["task"], columns["split"])}
        | _kinds(columns["task"], columns["subtask"]),
        "instruction_words": {t: round(float(words[rows].mean()), 3) for t, rows in of.items()},
        "instruction_variety": variety.result(),
        "mask_size": {
            "share": _spread(share),
            "pixels": _spread(area),
            "share_by_task": {t: round(float(share[rows].mean()), 6) for t, rows in of.items()},
        },
        "resolution": {"height": _spread(height[first]), "width": _spread(width[first])},
        "licences": _counted(*columns["licence"]),
        "shards": shards,
    }


def scene_of(source: Source, config: BuildConfig) -> dict[str, Any]:
    """What a scene of a source is, and how its tiles lie; once all items were asked for.

    Returns:
        ``{"is": text, "tile", "stride"}``, the last two in pixels, ``None`` where images stay whole.
    """
    told = getattr(source, "told", None)
    text = getattr(told, "scene", "") or getattr(source, "scene", "an image")
    whole = getattr(source, "keeps_splits", False)
    return {
        "is": text,
        "tile": None if whole else config.tile.size,
        "stride": None if whole else config.tile.stride,
    }


def card_rows(store: str) -> pa.Table:
    """What :func:`measured_card` needs of an index, names that repeat being held once."""
    filesystem, root = open_filesystem(store)
    filesystem.invalidate_cache()
    return read_parquet(filesystem, f"{root}/index.parquet", [*_NAMES, *_NUMBERS], _NAMES)


def _counted(codes: NDArray[np.int64], names: list[str]) -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return {name: count for name, count in sorted(zip(names, counts, strict=True)) if count}


def _by_task(
    tasks: tuple[NDArray[np.int64], list[str]], splits: tuple[NDArray[np.int64], list[str]]
) -> dict[str, dict[str, int]]:
    return {
        name: _counted(splits[0][tasks[0] == number], splits[1])
        for name, number in sorted((name, number) for number, name in enumerate(tasks[1]))
    }


def _kinds(
    tasks: tuple[NDArray[np.int64], list[str]], subtasks: tuple[NDArray[np.int64], list[str]]
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
