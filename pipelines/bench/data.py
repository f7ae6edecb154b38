"""Images per second from store to batch: our stream beside bare decoding and other loaders, in one run."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bench.loaders import PEERS, Item, Measured, bare, installed
from pipelines.bench.machine import machine
from pipelines.config import Config
from pipelines.plan.plan import Plan
from pipelines.store.fetch import FetchStats, RangeFetcher
from pipelines.store.index import StoreIndex
from pipelines.store.record import parse_fragment
from pipelines.stream.stream import Stream
from pipelines.stream.tokenizer import prepare_tokenizer
from unigeoseg.errors import UserError

_OURS = ("threads", "worker", "actors")
_AT_ONCE = 128


def bench_data(
    config: Config, store: str, samples: int, repeats: int = 1, tell: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Measures all loaders on the first ``samples`` positions of the plan (Ray must be running).

    Args:
        config: of a run; ``model.image_size`` is the size of what comes out.
        store: folder or ``s3://`` prefix. The peers read local files that are written from it.
        samples: plan positions.
        repeats: rounds; the median counts.
        tell: is told what is being measured.

    Returns:
        ``rows`` (images and samples per second; skipped peers say why), ``ratios`` of images per second to
        bare decoding, and ours to the best peer, and ``machine``.

    Raises:
        UserError: the plan is shorter than ``samples``.
    """
    config = _one_worker(config)
    index = StoreIndex.open(store, config.data.split)
    plan = Plan.from_config(index, config)
    steps = -(-samples // plan.batch_size)
    if steps > plan.steps:
        raise UserError(
            f"--samples {samples}: the plan has {plan.steps * plan.batch_size} positions; raise train.steps "
            "or train.epochs"
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, list[Measured]] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="unigeoseg-") as name:
        folder = Path(name)
        prepare_tokenizer(config, index, folder / "tokenizer")
        items = export(index, plan.positions(0, steps * plan.batch_size).rows, folder / "files")
        for turn in range(repeats):
            works: list[tuple[str, Callable[[], Measured]]] = [
                ("bare", lambda: bare(items, config.model.image_size, cores, folder))
            ]
            works += [
                (f"ours, {mode}", lambda mode=mode: _ours(config, store, folder, steps, mode))  # type: ignore[misc]
                for mode in _OURS
            ]
            for peer, module, measure in PEERS:
                if not installed(module):
                    skipped[peer] = (
                        f"{module} is not installed (pip install '.[peers]'; mosaicml-streaming clashes"
                    )
                    skipped[peer] += " with s3fs: give it an environment of its own)"
                    continue
                place = folder / f"{module}-{turn}"
                place.mkdir()
                works.append(
                    (peer, lambda m=measure, p=place: m(items, config.model.image_size, cores, p))  # type: ignore[misc]
                )
            for work, measured in works:
                if tell is not None:
                    tell(f"round {turn + 1}: {work}")
                found.setdefault(work, []).append(measured())
    return _document(found, skipped)


def _one_worker(config: Config) -> Config:
    """The same run for one worker that takes a step's positions at once."""
    return config.model_copy(
        update={
            "train": config.train.model_copy(update={"micro_batch": None}),
            "scale": config.scale.model_copy(update={"workers": 1}),
        }
    )


def export(index: StoreIndex, rows: Sequence[int] | np.ndarray[Any, Any], folder: Path) -> list[Item]:
    """Writes the encoded images as files; gives an item for each row."""
    folder.mkdir()
    fetcher, items = RangeFetcher(index.store), []
    for begin in range(0, len(rows), _AT_ONCE):
        entries = index.rows(list(rows[begin : begin + _AT_ONCE]))
        places = [(e["shard"], e["offset"], e["nbytes"]) for e in entries]
        for entry, data in zip(entries, fetcher.fetch(places, FetchStats()), strict=True):
            fragment = parse_fragment(data)
            path = folder / f"{entry['shard'].replace('/', '-')}-{entry['offset']}"
            if not path.exists():
                path.write_bytes(fragment.image)
            mask = fragment.record["samples"][entry["n"]]["mask"]
            items.append(Item(str(path), entry["height"], entry["width"], mask))
    return items


def _ours(config: Config, store: str, folder: Path, steps: int, mode: str) -> Measured:
    stream = open_mode(config, store, str(folder / "tokenizer"), steps, mode)
    with stream:
        first = next(stream)
        started, images = time.perf_counter(), first.stats.read.images
        samples = 0
        for item in stream:
            samples += len(item.batch)
        seconds = time.perf_counter() - started
    return Measured(stream.stats.read.images - images, samples, seconds)


def open_mode(config: Config, store: str, tokenizer: str, steps: int, mode: str) -> Stream:
    """Our stream: ``threads`` (no Ray), ``worker`` or ``actors``."""
    from pipelines.stream import open_stream
    from pipelines.stream.plain import open_plain_stream

    if mode == "threads":
        return open_plain_stream(config, store, tokenizer, 0, 1, 0, steps)
    data = config.data.model_copy(update={"decode": mode})
    return open_stream(config.model_copy(update={"data": data}), store, tokenizer, 0, 1, 0, steps)


def _document(found: dict[str, list[Measured]], skipped: dict[str, str]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    speed: dict[str, float] = {}
    for name, measured in found.items():
        rates = [m.images / m.seconds if m.seconds else 0.0 for m in measured]
        speed[name] = float(np.median(rates))
        rows.append(
            {
                "name": name,
                "images_per_s": speed[name],
                "samples_per_s": float(np.median([m.samples / m.seconds for m in measured if m.seconds])),
                "images": measured[0].images,
                "rounds": rates,
            }
        )
    rows += [{"name": name, "skipped": why} for name, why in skipped.items()]
    ratios = {f"{name} / bare": value / speed["bare"] for name, value in speed.items() if name != "bare"}
    best = max((speed[name] for name, _, _ in PEERS if name in speed), default=0.0)
    if best:
        ratios["ours, worker / best peer"] = speed["ours, worker"] / best
    return {"rows": rows, "ratios": ratios, "machine": machine()}
