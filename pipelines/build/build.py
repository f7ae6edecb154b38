"""Builds a GeoSeg store from a source, start to end."""

import hashlib
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.build.balance import samples_to_drop
from pipelines.build.blocks import Block, run_blocks
from pipelines.build.card import config_hash, dataset_card
from pipelines.build.config import BuildConfig
from pipelines.build.endpoint.usage import bill
from pipelines.build.parts import finished_reports, read_tiles, stamp
from pipelines.build.sources.base import Source, SourceItem
from pipelines.build.sources.registry import open_source
from pipelines.build.split import assign_splits
from pipelines.build.stages import StageCounts
from pipelines.build.state import forget_parts, prepare
from pipelines.store.index import StoreIndex
from pipelines.store.writer import StoreWriter
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

_LOG = logging.getLogger(__name__)


def build_store(
    source: str,
    root: str | Path | None,
    out: str | Path,
    config: BuildConfig,
    progress: bool = True,
    force: bool = False,
    preview: bool = True,
) -> dict[str, Any]:
    """Builds a store; an interrupted build with the same settings goes on where it stopped.

    Args:
        source: name of the source.
        root: its folder (``None`` for the synthetic source).
        out: folder or ``s3://`` prefix of the store.
        config: everything that decides the store's bytes.
        progress: shows a progress bar on stderr.
        force: replaces a store that is already there.
        preview: also writes contact sheets of samples, ``preview-<task>.png``, into the store.

    Returns:
        ``{"stages": [...], "samples": {task: n}, "store": out, "quarantined": [...]}``.

    Raises:
        UserError: wrong input, nothing left to write, or no permission.
    """
    store = str(out)
    adapter = open_source(source, root, config)
    items = list(adapter.items())
    endpoint = _estimate(adapter, items, config)
    prepare(store, _plan(source, items, config), force)
    reports = _process(adapter, items, config, store, progress)
    counts = StageCounts()
    for report in reports:
        counts.merge(report["counts"])
    dropped = samples_to_drop(reports, config, counts)
    bad = [row for report in reports for row in report["bad"]]
    splits = assign_splits((item.group for item in items), config.split, config.seed)
    card = _write(adapter, config, store, len(reports), splits, dropped, counts, bad, preview)
    forget_parts(store)
    samples = {task: card["counts"]["task"].get(task, 0) for task in TASKS}
    result = {"stages": card["stages"], "samples": samples, "store": store, "quarantined": bad}
    if endpoint is not None:
        paid = bill([report["usage"] for report in reports], config.endpoint)
        result["endpoint"] = {"estimate": endpoint, "actual": paid}
    return result


def _estimate(source: Source, items: list[SourceItem], config: BuildConfig) -> dict[str, Any] | None:
    """What the endpoint will cost, said before its first request; ``None`` without one."""
    if config.endpoint.model is None:
        return None
    from pipelines.build.endpoint.estimate import estimate

    found = estimate(source, items, config)
    _LOG.warning(
        "endpoint: about %d requests, %d tokens in, %d out, $%.2f at most (from %d images)",
        *(found[name] for name in ("requests", "prompt_tokens", "completion_tokens", "dollars")),
        found["images_tried"],
    )
    return found


def describe_build(
    source: str, root: str | Path | None, out: str | Path, config: BuildConfig
) -> dict[str, Any]:
    """What :func:`build_store` would work on; nothing is written.

    Raises:
        UserError: wrong source or root.
    """
    adapter = open_source(source, root, config)
    items = list(adapter.items())
    splits = assign_splits((item.group for item in items), config.split, config.seed)
    shares = Counter(splits[item.group] for item in items)
    return {
        "source": source,
        "images": len(items),
        "images_by_split": dict(sorted(shares.items())),
        "blocks": -(-len(items) // config.block_images),
        "workers": config.workers,
        "config_hash": config_hash(source, config),
        "store": str(out),
        "endpoint": _estimate(adapter, items, config),
    }


def _plan(source: str, items: list[SourceItem], config: BuildConfig) -> dict[str, str | int]:
    keys = [i.key for i in items]
    if len(set(keys)) != len(keys):
        double = next(k for k in keys if keys.count(k) > 1)
        raise UserError(f"source {source}: two images have the same key {double!r}; rename one of them")
    names = hashlib.sha256("\n".join(keys).encode()).hexdigest()
    return {
        "config": config_hash(source, config),
        "items": names,
        "block_images": config.block_images,
    }


def _process(
    source: Source, items: list[SourceItem], config: BuildConfig, store: str, progress: bool
) -> list[dict[str, Any]]:
    """Reports of all blocks in order; blocks that an earlier run finished are taken as they are."""
    size = config.block_images
    blocks: list[Block] = [(n, items[i : i + size]) for n, i in enumerate(range(0, len(items), size))]
    found = finished_reports(store)
    done = {n: found[n] for n, part in blocks if n in found and found[n]["stamp"] == stamp(part)}
    if done:
        _LOG.info("going on with an unfinished build: %d of %d blocks are there", len(done), len(blocks))
    todo = [b for b in blocks if b[0] not in done]
    allowed = config.max_bad_share * len(items)
    with tqdm(total=len(items), unit="image", desc=f"build {source.name}", disable=not progress) as bar:
        bar.update(len(items) - sum(len(b) for _, b in todo))
        for report in run_blocks(todo, source, config, store):
            if "error" in report:
                raise UserError(report["error"])
            done[report["block"]] = report
            bar.update(len(blocks[report["block"]][1]))
            _check_bad([row for r in done.values() for row in r["bad"]], allowed, len(items))
    return [done[n] for n, _ in blocks]


def _check_bad(bad: list[dict[str, str]], allowed: float, total: int) -> None:
    if len(bad) > allowed:
        shown = "; ".join(f"{row['file']}: {row['detail']}" for row in bad[:3])
        raise UserError(
            f"{len(bad)} of {total} images cannot be used: {shown}. Repair or remove them, or leave them out "
            f"with max_bad_share={min(1.0, 1.5 * len(bad) / total):.2g} (they are then counted and named)"
        )


def _write(
    source: Source,
    config: BuildConfig,
    store: str,
    blocks: int,
    splits: dict[str, str],
    dropped: set[str],
    counts: StageCounts,
    bad: list[dict[str, str]],
    preview: bool,
) -> dict[str, Any]:
    writer = StoreWriter(store, config.shard_bytes)
    try:
        written = 0
        for number in range(blocks):
            for tile in read_tiles(store, number):
                samples = [s for s in tile["samples"] if s["sample_id"] not in dropped]
                if samples:
                    writer.add(_document(source, tile, samples, splits[tile["group"]]), tile["image"])
                    written += len(samples)
    except BaseException:
        writer.abort()
        raise
    counts.add("write", written, written)
    if not written:
        reasons = {r["name"]: r["dropped"] for r in counts.rows() if r["dropped"]}
        raise UserError(f"no region of {source.name} became a sample; dropped by stage: {reasons}")
    index, shards = writer.finish()
    if preview:
        from pipelines.build.preview import write_previews  # matplotlib is slow to import

        write_previews(StoreIndex(store, "all", index.combine_chunks(), {}))
    card = dataset_card(index, shards, source.name, config, counts.rows(), bad)
    writer.write_card(card)
    return card


def _document(
    source: Source, tile: dict[str, Any], samples: list[dict[str, Any]], split: str
) -> dict[str, Any]:
    return {
        "key": tile["key"],
        "image": {
            "file": f"{tile['key']}.{tile['extension']}",
            "height": tile["height"],
            "width": tile["width"],
        },
        "source": source.name,
        "scene": tile["scene"],
        "split": split,
        "licence": source.licence,
        "samples": samples,
    }
