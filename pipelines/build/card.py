"""``dataset.json``: what a finished store says of itself (the columns of the paper's Table 10, and more)."""

import hashlib
import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.build.config import BuildConfig
from pipelines.build.edition import edition
from pipelines.build.endpoint.config import WITHOUT_EFFECT as ENDPOINT_WITHOUT_EFFECT
from pipelines.build.variety import Variety
from pipelines.store.writer import SCHEMA_VERSION
from unigeoseg.tasks import TASKS

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
    """What index and shards of a store say, however it was made."""
    names = ("task", "source", "category", "split", "licence", "scene")
    columns = {name: index.column(name).to_pylist() for name in names}
    tasks = np.asarray(columns["task"])
    area = index.column("mask_area").to_numpy().astype(np.float64)
    height, width = (index.column(n).to_numpy().astype(np.float64) for n in ("height", "width"))
    words = index.column("words").to_numpy().astype(np.float64)
    first = index.column("n").to_numpy() == 0
    present = [t for t in TASKS if (tasks == t).any()]
    return {
        "schema_version": SCHEMA_VERSION,
        "samples": index.num_rows,
        "images": sum(s["images"] for s in shards),
        "scenes": len(set(zip(columns["source"], columns["scene"], strict=True))),
        "counts": {name: _counted(columns[name]) for name in ("task", "source", "category", "split")}
        | {"task_split": _by_task(columns["task"], columns["split"])},
        "instruction_words": {t: round(float(words[tasks == t].mean()), 3) for t in present},
        "instruction_variety": variety.result(),
        "mask_size": {
            "share": _spread(area / (height * width)),
            "pixels": _spread(area),
            "share_by_task": {
                t: round(float((area / (height * width))[tasks == t].mean()), 6) for t in present
            },
        },
        "resolution": {"height": _spread(height[first]), "width": _spread(width[first])},
        "licences": _counted(columns["licence"]),
        "shards": shards,
    }


def _counted(values: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _by_task(tasks: list[str], splits: list[str]) -> dict[str, dict[str, int]]:
    counted = Counter(zip(tasks, splits, strict=True))
    return {t: {s: n for (task, s), n in sorted(counted.items()) if task == t} for t in sorted(set(tasks))}


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
