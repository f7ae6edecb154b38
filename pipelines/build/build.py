"""Builds a GeoSeg store from a source, start to end.

Each step runs over numbered pieces that read and write files beside the store, so it goes on where it was
interrupted, and no process holds more than one piece: blocks of images become tiles with samples, their sizes
decide the shards, shards are written. Bytes depend on the input and the configuration alone.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.build.balance import Balance, Cap, cutoff_of, smallest_ranks
from pipelines.build.card import CardRows, config_hash, dataset_card, scene_of
from pipelines.build.edition import edition
from pipelines.build.endpoint.usage import bill
from pipelines.build.manifest import Listing, Manifest, read_stamps
from pipelines.build.parts import count_block, finished_blocks, read_reports, read_tiles, run_block
from pipelines.build.progress import Steps
from pipelines.build.runner import Runner, no_space, open_runner, parallel
from pipelines.build.shards import (
    Documents,
    Packing,
    Shard,
    finished_entry,
    measure_block,
    shard_rows,
    write_shard,
)
from pipelines.build.sources.base import Source
from pipelines.build.sources.registry import open_source
from pipelines.build.state import forget_parts, hold, prepare
from pipelines.build.variety import Variety
from pipelines.config.building import BuildConfig
from pipelines.labels.stages import StageCounts
from pipelines.storage.ahead import ahead
from pipelines.store.index import StoreIndex, read_card
from pipelines.store.writer import IndexWriter, write_card
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
        source: name of the source, or the YAML file that describes it.
        root: its folder (``None`` for the synthetic source).
        out: folder or ``s3://`` prefix of the store.
        config: everything that decides the store's bytes.
        progress: shows progress on stderr: bars on a terminal, lines elsewhere.
        force: replaces a store that is already there.
        preview: also writes contact sheets of samples, ``preview-<task>.png``, into the store.

    Returns:
        ``{"stages": [...], "samples": {task: n}, "store": out, "quarantined": [...]}``, and with an
        endpoint ``"endpoint": {"estimate", "actual"}``.

    Raises:
        UserError: wrong input, nothing left to write, no permission, or no space.
    """
    store = str(out)
    adapter, config = _open(source, root, config)
    listing = Listing(adapter.name, adapter.items(), config)
    try:
        expected = _estimate(adapter, listing, config)
        plan = _plan(adapter, listing.manifest, config)
        with hold(store, plan, force) as still_ours:
            if not prepare(store, plan, force):
                listing.publish(store)
                with open_runner(config.workers) as runner:
                    own = config.model_copy(update={"workers": parallel(config.workers)})
                    _Build(adapter, own, store, listing.manifest, runner, progress, still_ours).run(preview)
            paid = _bill(store, len(listing.manifest.sizes), config) if expected else None
            forget_parts(store)
    except OSError as error:
        raise UserError(no_space(error)) if error.errno in (27, 28, 122) else error from error
    finally:
        listing.close()
    card = read_card(store)
    samples = {task: card["counts"]["task"].get(task, 0) for task in TASKS}
    result = {"samples": samples, "store": store} | {n: card[n] for n in ("stages", "quarantined")}
    return result | ({"endpoint": {"estimate": expected, "actual": paid}} if expected else {})


def _estimate(source: Source, listing: Listing, config: BuildConfig) -> dict[str, Any] | None:
    """What the endpoint will cost, said before its first request; ``None`` without one."""
    if config.endpoint.model is None:
        return None
    from pipelines.build.endpoint.estimate import IMAGES, estimate

    found = estimate(source, listing.spread(IMAGES), listing.manifest.images, config)
    _LOG.warning(
        "endpoint: about %d requests, %d tokens in, %d out, $%.2f at most (from %d tiles of %d images)",
        *(found[name] for name in ("requests", "prompt_tokens", "completion_tokens", "dollars")),
        *(found[name] for name in ("tiles_tried", "images_tried")),
    )
    return found


def _bill(store: str, blocks: int, config: BuildConfig) -> dict[str, float] | None:
    """What all runs of this build paid; ``None`` if it was killed while it removed its reports."""
    done = finished_blocks(store)
    if len(done) < blocks:
        return None
    return bill([report["usage"] for report in read_reports(store, sorted(done))], config.endpoint)


def describe_build(
    source: str, root: str | Path | None, out: str | Path, config: BuildConfig
) -> dict[str, Any]:
    """What :func:`build_store` would work on; nothing is written.

    Raises:
        UserError: wrong source or root.
    """
    adapter, config = _open(source, root, config)
    listing = Listing(adapter.name, adapter.items(), config)
    try:
        shares = Counter(listing.splits_of_images())
        expected = _estimate(adapter, listing, config)
    finally:
        listing.close()
    told = getattr(adapter, "told", None)
    return {
        "source": adapter.name,
        "images": listing.manifest.images,
        "images_by_split": dict(sorted(shares.items())),
        "own_splits": dict(listing.manifest.own),
        "blocks": len(listing.manifest.sizes),
        "workers": config.workers,
        "config_hash": _hash(adapter, config),
        "store": str(out),
        "endpoint": expected,
        "files": None if told is None else next(r for r in told.files.rows() if r["name"] == "files"),
    }


def _open(source: str, root: str | Path | None, config: BuildConfig) -> tuple[Source, BuildConfig]:
    """A source, and the configuration with what it decides: whether its own splits are kept."""
    adapter = open_source(source, root, config)
    own = config.split.own
    if own is None:
        own = bool(getattr(adapter, "keeps_splits", False))
    return adapter, config.model_copy(update={"split": config.split.model_copy(update={"own": own})})


def _hash(source: Source, config: BuildConfig) -> str:
    return config_hash(source.name, config, getattr(source, "fingerprint", ""))


def _plan(source: Source, manifest: Manifest, config: BuildConfig) -> dict[str, str | int]:
    return {
        "config": _hash(source, config),
        "edition": edition(config.endpoint.model is not None),
        "items": manifest.names,
        "blocks": len(manifest.sizes),
        "block_images": config.block_images,
    }


class _Build:
    """One run over the steps of a build."""

    def __init__(
        self,
        source: Source,
        config: BuildConfig,
        store: str,
        manifest: Manifest,
        runner: Runner,
        progress: bool,
        still_ours: Callable[[], None],
    ) -> None:
        self._source, self._config, self._store = source, config, store
        self._still_ours = still_ours
        self._manifest, self._runner, self._progress = manifest, runner, progress
        self._blocks = range(len(manifest.sizes))
        self._counts, self._variety = StageCounts(), Variety()
        if (told := getattr(source, "told", None)) is not None:
            self._counts.merge(told.files.rows())
        self._bad: list[dict[str, str]] = []
        self._stamps: dict[int, str] = {}
        self._shown: frozenset[int] | None = None

    def run(self, preview: bool) -> None:
        """All steps, up to the card that makes the store a finished one."""
        diversity = self._tiles()
        balance = self._balance(diversity)
        documents = Documents(
            self._store, self._source.name, self._source.licence, self._manifest.splits, balance
        )
        shards = self._pack(documents)
        entries = self._shards(documents, shards)
        self._still_ours()
        self._index(shards)
        self._finish(entries, preview)

    def _tiles(self) -> Counter[int]:
        """Makes the tiles of all blocks; blocks that an earlier run finished are taken as they are."""
        done = self._unchanged()
        if done:
            _LOG.info(
                "going on with an unfinished build: %d of %d blocks are there", len(done), len(self._blocks)
            )
        work = partial(
            run_block,
            source=self._source,
            config=self._config,
            store=self._store,
            splits=self._manifest.splits,
            cutoff=self._cutoff(done),
        )
        with self._bar("tiles", "image", self._manifest.images) as bar:
            bar.update(sum(self._manifest.sizes[n] for n in done))
            bad = sum(done.values())
            known: list[dict[str, str]] = []
            so_far = StageCounts()
            for number, report in self._runner(work, [n for n in self._blocks if n not in done]):
                so_far.merge(report["counts"])
                bar.update(self._manifest.sizes[number], so_far.brief())
                known += report["bad"]
                self._check_bad(known, bad + len(known))
        diversity: Counter[int] = Counter()
        for report in read_reports(self._store, self._blocks):
            self._counts.merge(report["counts"])
            self._bad += report["bad"]
            self._stamps[report["block"]] = report["stamp"]
            diversity.update(dict(map(tuple, report["diversity"])))
            if "shown" in report:
                self._shown = (self._shown or frozenset()) | frozenset(report["shown"])
        self._check_bad(self._bad, len(self._bad))
        return diversity

    def _cutoff(self, done: dict[int, int]) -> float:
        """Fewest categories of a tile that an endpoint reasons about: what will be left out is not paid for.

        The embedded writer costs nothing, so that nothing is read twice for it.
        """
        if self._config.endpoint.model is None or len(done) == len(self._blocks):
            return 0.0
        diversity: Counter[int] = Counter()
        work = partial(count_block, source=self._source, config=self._config, store=self._store)
        for _, found in self._each("diversity", work):
            diversity.update(dict(map(tuple, found["diversity"])))
        return cutoff_of(diversity, self._config)

    def _unchanged(self) -> dict[int, int]:
        """Finished blocks whose files are what they were then, with their numbers of unusable images."""
        found = sorted(finished_blocks(self._store) & set(self._blocks))
        now = read_stamps(self._store, found)
        reports = read_reports(self._store, found)
        return {r["block"]: len(r["bad"]) for r in reports if r["stamp"] == now[r["block"]]}

    def _check_bad(self, bad: list[dict[str, str]], number: int) -> None:
        total = self._manifest.images
        if number > self._config.max_bad_share * total:
            shown = "; ".join(f"{row['file']}: {row['detail']}" for row in bad[:3])
            share = min(1.0, 1.5 * number / total)
            raise UserError(
                f"{number} of {total} images cannot be used: {shown}. Repair or remove them, or leave "
                f"them out with max_bad_share={share:.2g}, or --keep-going whatever their number (they are "
                "then counted and named)"
            )

    def _balance(self, diversity: Counter[int]) -> Balance:
        """What the whole source decides: the diversity cutoff, then the caps."""
        balance = Balance(self._config.seed, cutoff_of(diversity, self._config), shown=self._shown)
        cap = self._config.category_cap
        if cap is None:
            return balance
        ranks = Cap(cap)
        for _, found in self._each("caps", partial(_ranks, store=self._store, balance=balance, cap=cap)):
            ranks.add(found["ranks"])
        return replace(balance, last=ranks.last())

    def _pack(self, documents: Documents) -> list[Shard]:
        packing, waiting, due = Packing(self._config.shard_bytes), {}, 0
        for number, found in self._each("sizes", partial(measure_block, documents)):
            self._counts.merge(found["counts"])
            self._variety.merge(found["variety"])
            waiting[number] = found["sizes"]
            while due in waiting:  # blocks finish in any order and are packed in theirs
                packing.add(due, waiting.pop(due))
                due += 1
        shards = packing.shards()
        if not shards:
            raise UserError(f"no region of {self._source.name} became a sample: {self._counts.why_nothing()}")
        return shards

    def _shards(self, documents: Documents, shards: list[Shard]) -> list[dict[str, Any]]:
        stamps = [shard.stamp(documents, self._stamps) for shard in shards]
        known = zip(shards, stamps, strict=True)
        entries = list(ahead(lambda one: finished_entry(self._store, *one), known))
        missing = [n for n, entry in enumerate(entries) if entry is None]
        work = partial(_write, documents=documents)
        with self._bar("shards", "shard", len(shards)) as bar:
            bar.update(len(shards) - len(missing))
            for number, entry in self._runner(work, missing, lambda n: (shards[n], stamps[n])):
                entries[number] = entry
                bar.update()
        return [entry for entry in entries if entry is not None]

    def _index(self, shards: list[Shard]) -> None:
        writer = IndexWriter(self._store)
        try:
            for rows in shard_rows(self._store, [shard.path for shard in shards]):
                writer.add(rows)
        except BaseException:
            writer.abort()
            raise
        writer.close()

    def _finish(self, entries: list[dict[str, Any]], preview: bool) -> None:
        index = CardRows(self._store)
        if preview:
            from pipelines.build.preview import write_previews  # matplotlib is slow to import

            write_previews(StoreIndex.open_all(self._store, {}))
        card = dataset_card(
            index,
            entries,
            self._source.name,
            self._config,
            self._counts.rows(),
            self._bad,
            self._variety,
            getattr(self._source, "fingerprint", ""),
        )
        if self._manifest.own:
            card["own_splits"] = dict(self._manifest.own)
        card["scene_of"] = {self._source.name: scene_of(self._source, self._config)}
        write_card(self._store, card)

    def _each(self, name: str, work: Callable[[int], dict[str, Any]]) -> Iterable[tuple[int, dict[str, Any]]]:
        with self._bar(name, "block", len(self._blocks)) as bar:
            for number, found in self._runner(work, self._blocks):
                yield number, found
                bar.update()

    def _bar(self, step: str, unit: str, total: int) -> Steps:
        return Steps(f"{self._source.name} {step}", unit, total, self._progress)


def _ranks(number: int, store: str, balance: Balance, cap: int) -> dict[str, Any]:
    return {"ranks": smallest_ranks(read_tiles(store, number, images=False), balance, cap)}


def _write(part: tuple[Shard, str], documents: Documents) -> dict[str, Any]:
    return write_shard(part[0], documents, part[1])
