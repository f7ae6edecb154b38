"""Checks every record of a store: readable, sound, and as the index, the card and the rules say."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from heapq import merge
from itertools import groupby
from multiprocessing import get_context
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.build.progress import Steps
from pipelines.curate.lint_pictures import Seen, twins
from pipelines.curate.lint_shard import Finding, Rules, check_shard
from pipelines.curate.lint_text import authors
from pipelines.storage.ahead import ahead
from pipelines.store.index import StoreIndex
from pipelines.store.repeated import repeated
from pipelines.store.scan import open_all_splits, parted

Error = dict[str, str]
#: A smaller store is not worth the start of other processes.
_ALONE = 3000
#: From this share on a script is the store's.
_NEARLY_ALL = 0.9


def lint_store(store: str, progress: bool = True, workers: int = 1) -> dict[str, Any]:
    """Opens every record of a finished store.

    Args:
        store: folder or ``s3://`` prefix.
        progress: shows progress on stderr.
        workers: processes, a shard each at a time; a small store is read by this one.

    Returns:
        ``{"records": n, "errors": [{"sample_id", "reason"}]}``; errors of a whole file name it as sample_id,
        errors of an image its first sample.

    Raises:
        UserError: there is no finished store, or a shard cannot be reached.
    """
    index = open_all_splits(store)
    errors = check_index(index)
    images: list[Seen] = []
    scripts = _Scripts(len(index))
    with Steps("lint", "record", len(index), progress) as bar:
        for finding in _findings(index, workers if len(index) >= _ALONE else 1, bar):
            errors += finding.errors
            images += finding.images
            scripts.add(finding.scripts)
    errors += _same_images(images) + scripts.errors()
    return {"records": len(index), "errors": errors}


def check_index(index: StoreIndex) -> list[Error]:
    """What is wrong with an index by itself: ids that repeat, scenes in two splits."""
    return _duplicates(index) + _splits(index)


def _entries(index: StoreIndex) -> dict[str, dict[str, Any]]:
    listed = index.card.get("shards", [])
    return {shard["path"]: shard for shard in listed} if isinstance(listed, list) else {}


def _findings(index: StoreIndex, workers: int, bar: Steps) -> Iterator[Finding]:
    shards, rules = _shards(index), Rules(index.card.get("config", {}).get("rules", {}), authors(index.card))
    if workers <= 1:
        for shard, rows, entry in shards:
            part = StoreIndex(index.store, index.split, rows.combine_chunks(), index.card)
            yield check_shard(part, shard, entry, rules, bar.update)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:

        def check(one: tuple[str, pa.Table, dict[str, Any] | None]) -> Finding:
            return pool.submit(_elsewhere, index.store, one[0], packed(one[1]), one[2], rules).result()

        for finding in ahead(check, shards, workers, waiting=2 * workers):
            bar.update(finding.records)
            yield finding


def _shards(index: StoreIndex) -> Iterator[tuple[str, pa.Table, dict[str, Any] | None]]:
    """Each shard of the index or the card, with its rows and its entry, by name."""
    entries = _entries(index)
    listed = [(shard, index.table[:0]) for shard in entries]
    found = merge(parted(index.table, "shard"), sorted(listed, key=itemgetter(0)), key=itemgetter(0))
    for shard, group in groupby(found, key=itemgetter(0)):
        yield shard, next(group)[1], entries.get(shard)  # the rows of the index come first


def packed(rows: pa.Table) -> bytes:
    """Rows for another process: a pickled slice would take the whole table along."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())


def _elsewhere(store: str, shard: str, rows: bytes, entry: dict[str, Any] | None, rules: Rules) -> Finding:
    table = pa.ipc.open_stream(rows).read_all().combine_chunks()
    return check_shard(StoreIndex(store, "all", table, {}), shard, entry, rules)


def _duplicates(index: StoreIndex) -> list[Error]:
    return [
        {"sample_id": name, "reason": "duplicate: the id occurs more than once"}
        for name in repeated([index.table["sample_id"]])
    ]


def _splits(index: StoreIndex) -> list[Error]:
    """Scenes that are in more than one split."""
    names = [n for n in ("source", "scene", "split") if n in index.table.column_names]
    if len(names) < 3:
        return []
    places = index.table.select(names).group_by(["source", "scene"]).aggregate([("split", "count_distinct")])
    return [
        {
            "sample_id": f"{row['source']}/{row['scene']}",
            "reason": "split: the scene is in more than one split",
        }
        for row in places.filter(pc.field("split_count_distinct") > 1).to_pylist()
    ]


def _same_images(images: list[Seen]) -> list[Error]:
    """Pictures that stand under several keys; across splits they also give the held-out data away."""
    errors = []
    for seen, first, words in twins(images):
        reason = f"{words} {first.sample_id}"
        if seen.split != first.split:
            reason += f", which is in split {first.split}, this one in {seen.split}"
        errors.append({"sample_id": seen.sample_id, "reason": reason})
    return errors


class _Scripts:
    """Samples by the script of their text; only those are named that may turn out to be the odd ones.

    Args:
        records: of the store.
    """

    def __init__(self, records: int) -> None:
        self._most = (1 - _NEARLY_ALL) * records
        self._counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {}

    def add(self, found: dict[str, list[str]]) -> None:
        """Takes the samples of a shard."""
        for script, names in found.items():
            self._counts[script] += len(names)
            # So many are either nearly all or too many beside those that are.
            if self._counts[script] > self._most:
                self._names[script] = []
            else:
                self._names.setdefault(script, []).extend(names)

    def errors(self) -> list[Error]:
        """Samples in another script than nearly all of the store."""
        total = self._counts.total()
        main = max(self._counts, key=lambda name: self._counts[name], default="")
        if not total or self._counts[main] < _NEARLY_ALL * total:
            return []
        return [
            {"sample_id": name, "reason": f"script: the text is {script}, nearly all others are {main}"}
            for script, names in sorted(self._names.items())
            if script not in (main, "")
            for name in names
        ]
