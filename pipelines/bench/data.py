"""Images per second from store to batch: our stream beside bare decoding and other loaders, in one run."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bench.breakdown import break_down
from pipelines.bench.images import bench_config, write_bench_store
from pipelines.bench.loaders import PEERS, Item, Measured, bare, installed, mds_elsewhere
from pipelines.bench.nginx import nginx_installed, serve_bucket
from pipelines.bench.ours import MODES, anonymous_s3, fetch_only, ours, ours_in_workers
from pipelines.config import Config
from pipelines.models.machine import machine
from pipelines.plan.plan import Plan
from pipelines.storage.ahead import cores
from pipelines.store.fetch import FetchStats, RangeFetcher
from pipelines.store.index import StoreIndex
from pipelines.store.record import parse_fragment
from pipelines.stream.tokenizer import prepare_tokenizer

_AT_ONCE = 128
_BUCKET = "bench"
Work = tuple[str, Callable[[], Measured]]


def bench_data(
    config: Config,
    store: str,
    samples: int,
    repeats: int = 1,
    formats: Sequence[str] = ("jpeg", "png"),
    s3: bool = False,
    peer_python: str | None = None,
    tell: Callable[[str], None] | None = None,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Measures all loaders on ``samples`` images of a store, a sample each (Ray must be running).

    Args:
        config: of a run; ``model.image_size`` is the size of what comes out.
        store: folder or ``s3://`` prefix. All loaders read local copies of its images.
        samples: images.
        repeats: rounds; the median counts.
        formats: the same images are measured in each of these.
        s3: measures ours from S3 too, served by nginx on loopback to anonymous readers.
        peer_python: an interpreter that has mosaicml-streaming.
        tell: is told what is being measured.
        only: parts of the names of the rows that are measured beside bare decoding; all without.

    Returns:
        ``rows`` (images and samples per second; skipped peers say why), ``ratios`` of images per second to
        bare decoding, and ours to the best peer, ``parts`` (milliseconds per image of each part of the way,
        in one thread, by format) and ``machine``.

    Raises:
        UserError: the store is out of reach, or ``samples`` are fewer than a batch.
    """
    index = StoreIndex.open(store, config.data.split)
    wanted = bench_config(config, config.data.split, samples)
    rows: list[dict[str, Any]] = []
    ratios: dict[str, float] = {}
    parts: dict[str, dict[str, float]] = {}
    for kind in formats:
        with tempfile.TemporaryDirectory(prefix="unigeoseg-") as name, ExitStack() as stack:
            folder = Path(name)
            if tell is not None:
                tell(f"{kind}: writing {samples} images")
            copy = write_bench_store(index, samples, kind, folder / "store")
            endpoint = stack.enter_context(serve_bucket(folder / "store", _BUCKET)) if s3 else None
            place = _Place(wanted, copy, folder, endpoint)
            found, skipped = _measure(place, peer_python, repeats, partial(_say, tell, kind), only)
            more, compared = _compare(found, skipped, kind)
            rows += more
            ratios |= compared
            parts[kind] = break_down(wanted, copy, place.tokenizer)
    return {"rows": rows, "ratios": ratios, "parts": parts, "machine": machine()}


def _say(tell: Callable[[str], None] | None, kind: str, words: str) -> None:
    if tell is not None:
        tell(f"{kind}: {words}")


class _Place:
    """A format's store, its images as files, and the tokenizer."""

    def __init__(self, config: Config, store: str, folder: Path, endpoint: str | None) -> None:
        self.config, self.store, self.folder, self.endpoint = config, store, folder, endpoint
        index = StoreIndex.open(store, config.data.split)
        plan = Plan.from_config(index, config)
        self.tokenizer = str(folder / "tokenizer")
        prepare_tokenizer(config, index, folder / "tokenizer")
        self.items = export(index, plan.positions(0, plan.steps * plan.batch_size).rows, folder / "files")
        self.cores = cores()

    def works(self, peer_python: str | None, turn: int) -> tuple[list[Work], dict[str, str]]:
        """What is measured in a round, in order, and what cannot be."""
        size, skipped = self.config.model.image_size, {}
        works: list[Work] = [("bare", partial(bare, self.items, size, self.cores, self.folder))]
        for mode in MODES:
            works.append((f"ours, {mode}", partial(ours, self.config, self.store, self.tokenizer, mode)))
        for mode in MODES[1:]:
            name = f"ours, {mode}, two ranks"
            works.append(
                (name, partial(ours_in_workers, self.config, self.store, self.tokenizer, mode, world=2))
            )
        for peer, module, measure in PEERS:
            if module == "streaming" and peer_python is not None:
                measure = mds_elsewhere(peer_python)
            elif not installed(module):
                skipped[peer] = (
                    f"{module} is not installed (pip install '.[peers]'; mosaicml-streaming clashes with "
                    "s3fs: give it an environment of its own, and that one's python as --peer-python)"
                )
                continue
            folder = self.folder / f"{module}-{turn}"
            folder.mkdir()
            works.append((peer, partial(measure, self.items, size, self.cores, folder)))
        return works + self._from_s3(), skipped

    def _from_s3(self) -> list[Work]:
        if self.endpoint is None:
            return []
        remote = f"s3://{_BUCKET}"

        def inside(work: Callable[[], Measured]) -> Measured:
            assert self.endpoint is not None
            with anonymous_s3(self.endpoint):
                return work()

        found: list[Work] = [("S3: fetch only", partial(inside, partial(fetch_only, self.config, remote)))]
        arguments = self.config, remote, self.tokenizer
        found.append(("S3: ours, threads", partial(inside, partial(ours, *arguments, "threads"))))
        for world, words in ((1, ""), (2, ", two ranks")):
            for mode in MODES[1:]:  # in processes that know the endpoint: Ray's own started before
                work = partial(ours_in_workers, *arguments, mode, world=world)
                found.append((f"S3: ours, {mode}{words}", partial(inside, work)))
        return found


def _measure(
    place: _Place, peer_python: str | None, repeats: int, tell: Callable[[str], None], only: Sequence[str]
) -> tuple[dict[str, list[Measured]], dict[str, str]]:
    found: dict[str, list[Measured]] = {}
    skipped: dict[str, str] = {}
    for turn in range(repeats):
        works, skipped = place.works(peer_python, turn)
        for work, measured in works:
            if only and work != "bare" and not any(part in work for part in only):
                continue
            tell(f"round {turn + 1}: {work}")
            found.setdefault(work, []).append(measured())
    if place.endpoint is None:
        why = "ask for it with --s3" if nginx_installed() else "nginx is not installed"
        skipped["S3 on loopback"] = why
    return found, skipped


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


def _compare(
    found: dict[str, list[Measured]], skipped: dict[str, str], kind: str
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    rows: list[dict[str, Any]] = []
    speed: dict[str, float] = {}
    for name, measured in found.items():
        rates = [m.images / m.seconds if m.seconds else 0.0 for m in measured]
        speed[name] = float(np.median(rates))
        row: dict[str, Any] = {"name": f"{kind}: {name}", "format": kind, "images_per_s": speed[name]}
        row["samples_per_s"] = float(np.median([m.samples / m.seconds for m in measured if m.seconds]))
        rows.append({**row, "images": measured[0].images, "rounds": rates})
    rows += [{"name": f"{kind}: {name}", "format": kind, "skipped": why} for name, why in skipped.items()]
    ratios = {
        f"{kind}: {name} / bare": value / speed["bare"] for name, value in speed.items() if name != "bare"
    }
    best = max((speed[name] for name, _, _ in PEERS if name in speed), default=0.0)
    if best and "ours, worker" in speed:
        ratios[f"{kind}: ours, worker / best peer"] = speed["ours, worker"] / best
    return rows, ratios
