"""Several stores as one: images stream through, shards are cut anew, nothing occurs twice unseen.

The indices of the inputs are mapped where they are large; of their images a few windows are in memory.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.build.card import CardRows, measured_card
from pipelines.build.progress import Steps
from pipelines.build.runner import FULL, no_space
from pipelines.build.shards import keep_shard, kept_shard, shard_rows
from pipelines.build.state import forget_parts, hold, prepare
from pipelines.build.variety import Variety
from pipelines.labels.stages import STAGES, StageCounts
from pipelines.storage.filesystem import open_filesystem
from pipelines.store.index import StoreIndex
from pipelines.store.record import BadRecord, parse_fragment
from pipelines.store.repeated import repeated
from pipelines.store.scan import check_schema, fragments, of_split, open_all_splits, places
from pipelines.store.writer import (
    IndexWriter,
    ShardWriter,
    fitting_name,
    shard_path,
    write_card,
)
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

#: What may become of a sample id that an earlier store has already.
ON_DUPLICATE = ("refuse", "first")
_NAMED = 5
#: Bytes of a new key: a tar member's name holds 100 with ``.json`` behind it.
_MOST_OF_KEY = 94


def merge_stores(
    stores: Sequence[str],
    out: str,
    on_duplicate: str = "refuse",
    shard_bytes: int = 256 * 1024 * 1024,
    force: bool = False,
    progress: bool = True,
    preview: bool = True,
) -> dict[str, Any]:
    """Writes the samples of ``stores``, in this order, as one store; splits stay what they are.

    A key that an earlier store uses gets its source's name behind it (and a hash where that would be too long
    for a tar); sample ids never change. The card lists the stores that were built, also where one of the
    inputs was merged itself, so that it is known who wrote the text of each source. The same
    stores in the same order give the same bytes. An interrupted merge goes on after its last whole shard by
    the same call.

    Args:
        stores: at least two finished stores.
        out: folder or ``s3://`` prefix of the new store.
        on_duplicate: ``refuse``, or ``first``: the sample of the earliest store stays.
        shard_bytes: a shard that has reached this size is closed.
        force: replaces a store that is already at ``out``.
        progress: shows progress on stderr.
        preview: also writes contact sheets into the store.

    Returns:
        ``{"store", "stores", "samples": {task: n}, "images", "shards", "duplicates", "licences"}``.

    Raises:
        UserError: a store is missing, unfinished or of another schema version; ids occur twice; a scene is in
            different splits; a mask has another size than its image; ``out`` cannot be written.
    """
    _check_out(stores, out)
    indices = [open_all_splits(store) for store in stores]
    for index in indices:
        check_schema(index)
    duplicates, names = plan_merge(indices)
    if duplicates and on_duplicate == "refuse":
        named = ", ".join(sorted(duplicates)[:_NAMED])
        raise UserError(
            f"{len(duplicates)} sample ids occur more than once in {', '.join(stores)}: {named}"
            f"{', ...' if len(duplicates) > _NAMED else ''}; --on-duplicate first keeps the earliest store's"
        )
    _check_scenes(indices)
    sources = [_origin(index) for index in indices]
    text = json.dumps([sources, on_duplicate, shard_bytes], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    plan: dict[str, str | int] = {"merge": digest}
    with hold(out, plan, force) as still_ours:
        if not prepare(out, plan, force):
            work = _Merge(indices, out, duplicates, names, shard_bytes, progress)
            try:
                entries = work.run()
                still_ours()
                rows = CardRows(out)
                if preview:
                    _previews(out)
                write_card(out, _card(indices, rows, entries, sources, digest, work))
            except OSError as error:
                raise UserError(no_space(error)) if error.errno in FULL else error from error
        forget_parts(out)
    index = open_all_splits(out)
    counted = index.card["counts"]["task"]
    return {
        "store": out,
        "stores": list(stores),
        "samples": {task: counted.get(task, 0) for task in TASKS},
        "images": index.card["images"],
        "shards": len(index.card["shards"]),
        "duplicates": index.card["merge"]["duplicates"],
        "licences": index.card["licences"],
    }


def plan_merge(indices: list[StoreIndex]) -> tuple[set[str], list[dict[str, str]]]:
    """What the indices alone decide.

    Returns:
        The sample ids that occur more than once; and of each store the keys that an earlier one uses, with
        what they are called instead.
    """
    twice = set(repeated([index.table["sample_id"] for index in indices]))
    pairs = [
        index.table.select(["key", "source"]).group_by(["key", "source"], use_threads=False).aggregate([])
        for index in indices
    ]
    # Python's own texts are made of those keys alone that are in several stores.
    shared = pa.array(sorted(set(repeated([pair["key"] for pair in pairs]))), pa.string())
    names = _renamings([pair.filter(pc.is_in(pair["key"], value_set=shared)) for pair in pairs])
    new = pa.array([name for found in names for name in found.values()], pa.string())
    if any(pc.any(pc.is_in(pair["key"], value_set=new)).as_py() for pair in pairs):
        names = _renamings(pairs)  # a new name is somebody's key
    return twice, names


def _renamings(pairs: list[pa.Table]) -> list[dict[str, str]]:
    taken: set[str] = set()
    found: list[dict[str, str]] = []
    for own in (pair.to_pydict() for pair in pairs):
        keys = set(own["key"])
        renamed = {}
        for key, source in zip(own["key"], own["source"], strict=True):
            if key in taken:
                renamed[key] = _free(f"{key}_{source}", taken | keys)
        found.append(renamed)
        taken |= {renamed.get(key, key) for key in keys}
    return found


class _Merge:
    """One pass over all stores, which goes on after the last shard that an earlier one finished."""

    def __init__(
        self,
        indices: list[StoreIndex],
        out: str,
        twice: set[str],
        names: list[dict[str, str]],
        shard_bytes: int,
        progress: bool,
    ) -> None:
        self._indices, self._out, self._limit = indices, out, shard_bytes
        self._twice, self._seen = twice, set[str]()
        # The keys must not depend on the splits: the earliest store keeps its own.
        self._progress, self._names = progress, names
        self.dropped = 0
        self.variety = Variety()

    def run(self) -> list[dict[str, Any]]:
        """Writes shards and index; gives the shards' entries of the card."""
        entries: list[dict[str, Any]] = []
        splits = sorted({s for i in self._indices for s in pc.unique(i.table["split"]).to_pylist()})
        total = sum(len(index) for index in self._indices)
        with Steps("merge", "sample", total, self._progress) as bar:
            for split in splits:
                entries += self._split(split, bar)
        index = IndexWriter(self._out)
        try:
            for rows in shard_rows(self._out, [entry["path"] for entry in entries]):
                index.add(rows)
        except BaseException:
            index.abort()
            raise
        index.close()
        return entries

    def _split(self, split: str, bar: Steps) -> list[dict[str, Any]]:
        parts = [of_split(index, split) for index in self._indices]
        entries, begin = self._finished(split)
        bar.update(self._pass_over(parts, begin))
        writer: ShardWriter | None = None
        variety, before = Variety(), self.dropped

        def close(after: tuple[int, int]) -> None:
            nonlocal writer, variety, before
            assert writer is not None
            entry, kept = writer.close(), variety.kept()
            note = {"entry": entry, "after": after, "dropped": self.dropped - before, "variety": kept}
            keep_shard(self._out, writer, note)
            self.variety.merge(kept)
            entries.append(entry)
            writer, variety, before = None, Variety(), self.dropped

        after = begin
        try:
            for after, document, image, rows in self._images(parts, begin):
                bar.update(rows)
                if not document["samples"]:
                    continue
                key = document["key"]
                document = _renamed(document, self._names[after[0]].get(key, key))
                writer = writer or ShardWriter(self._out, shard_path(split, len(entries)), split)
                writer.add(document, image)
                variety.add(document["samples"])
                if writer.bytes >= self._limit:
                    close(after)
            if writer is not None:
                close(after)
        except BaseException:
            if writer is not None:
                writer.abort()
            raise
        return entries

    def _finished(self, split: str) -> tuple[list[dict[str, Any]], tuple[int, int]]:
        """Shards of a split that an earlier run finished, and the store and image after them."""
        entries: list[dict[str, Any]] = []
        after = (0, 0)
        while (note := kept_shard(self._out, shard_path(split, len(entries)))) is not None:
            entries.append(note["entry"])
            after = note["after"][0], note["after"][1]
            self.dropped += note["dropped"]
            self.variety.merge(note["variety"])
        return entries, after

    def _pass_over(self, parts: list[StoreIndex], begin: tuple[int, int]) -> int:
        """Takes the images before a place as done; gives how many samples they have."""
        passed = 0
        for number, part in enumerate(parts[: begin[0] + 1]):
            rows = len(part)
            if number == begin[0]:
                found = places(part)
                rows = found[begin[1]].row if begin[1] < len(found) else rows
            passed += rows
            names = part.table["sample_id"][:rows]
            again = pc.is_in(names, value_set=pa.array(sorted(self._twice), pa.string()))
            self._seen.update(names.filter(again).to_pylist())
        return passed

    def _images(
        self, parts: list[StoreIndex], begin: tuple[int, int]
    ) -> Iterator[tuple[tuple[int, int], dict[str, Any], bytes, int]]:
        """From a place on: the place after each image, its document, its bytes, and its number of samples."""
        for number in range(begin[0], len(parts)):
            part, first = parts[number], begin[1] if number == begin[0] else 0
            for place, data in fragments(part.store, places(part)[first:]):
                first += 1
                try:
                    fragment = parse_fragment(data)
                except BadRecord as error:
                    raise UserError(
                        f"{part.store}/{place.shard} at byte {place.offset}: {error.detail}; "
                        "`unigeoseg data lint` names what is damaged"
                    ) from error
                document = dict(fragment.record)
                document["samples"] = [s for s in document["samples"] if self._fresh(s)]
                _check_sizes(part.store, document)
                yield (number, first), document, fragment.image, place.rows

    def _fresh(self, sample: dict[str, Any]) -> bool:
        name = sample["sample_id"]
        if name not in self._twice:
            return True
        if name in self._seen:
            self.dropped += 1
            return False
        self._seen.add(name)
        return True


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, fitting_name(name, _MOST_OF_KEY)
    while free in taken:
        number += 1
        free = fitting_name(f"{name}_{number}", _MOST_OF_KEY)
    return free


def _renamed(document: dict[str, Any], key: str) -> dict[str, Any]:
    extension = document["image"]["file"].rpartition(".")[2]
    return document | {"key": key, "image": document["image"] | {"file": f"{key}.{extension}"}}


def _check_out(stores: Sequence[str], out: str) -> None:
    roots = [open_filesystem(store)[1] for store in stores]
    if open_filesystem(out)[1] in roots:
        raise UserError(f"--out {out} is one of the stores to be merged: name a new folder")
    twice = [store for store, root in zip(stores, roots, strict=True) if roots.count(root) > 1]
    if twice:
        raise UserError(f"{twice[0]} is given twice: name each store once")


def _check_sizes(store: str, document: dict[str, Any]) -> None:
    size = [document["image"]["height"], document["image"]["width"]]
    for sample in document["samples"]:
        if list(sample["mask"]["size"]) != size:
            raise UserError(
                f"{store}: the mask of {sample['sample_id']} is {sample['mask']['size']}, its image {size}; "
                "build that store again"
            )


def _check_scenes(indices: list[StoreIndex]) -> None:
    names = ["source", "scene", "split"]
    pairs = pa.concat_tables([index.table.select(names).group_by(names).aggregate([]) for index in indices])
    places = pairs.group_by(["source", "scene"]).aggregate([("split", "distinct")])
    several = places.filter(pc.greater(pc.list_value_length(places["split_distinct"]), 1))
    wrong = sorted(
        (row["source"], row["scene"], sorted(row["split_distinct"])) for row in several.to_pylist()
    )
    if wrong:
        source, scene, splits = wrong[0]
        raise UserError(
            f"{len(wrong)} scenes would be in several splits, such as {scene!r} of {source} in "
            f"{' and '.join(splits)}: build these stores with the same seed and split shares"
        )


def _origin(index: StoreIndex) -> dict[str, Any]:
    """What the merged card says of an input; no path, so that where it lay does not matter."""
    card = index.card
    return {
        "config": card.get("config", {}),
        "config_hash": card.get("config_hash", ""),
        "samples": len(index),
        "sources": sorted(pc.unique(index.table["source"]).to_pylist()),
        "shards": [shard["sha256"] for shard in card.get("shards", [])],
    }


def _card(
    indices: list[StoreIndex],
    rows: CardRows,
    entries: list[dict[str, Any]],
    sources: list[dict[str, Any]],
    digest: str,
    work: _Merge,
) -> dict[str, Any]:
    stages, bad = StageCounts(), []
    for index in indices:
        stages.merge([row for row in index.card.get("stages", []) if row["name"] in STAGES])
        bad += index.card.get("quarantined", [])
    rules = [source["config"].get("rules", {}) for source in sources]
    limits = {
        "min_area": min(rule.get("min_area", 0.0) for rule in rules),
        "max_area": max(rule.get("max_area", 1.0) for rule in rules),
    }
    own: Counter[str] = Counter()
    for index in indices:
        own.update(index.card.get("own_splits", {}))
    origins = [
        origin
        for index, source in zip(indices, sources, strict=True)
        for origin in index.card.get("merge", {}).get("stores")
        or [{k: v for k, v in source.items() if k != "shards"}]
    ]
    return measured_card(rows, entries, work.variety) | {
        "config": {"rules": limits},
        "config_hash": digest,
        "merge": {"stores": origins, "duplicates": work.dropped},
        "stages": stages.rows(),
        "quarantined": bad,
        **({"own_splits": dict(sorted(own.items()))} if own else {}),
        "scene_of": {k: v for index in indices for k, v in index.card.get("scene_of", {}).items()},
    }


def _previews(out: str) -> None:
    from pipelines.build.preview import write_previews  # matplotlib is slow to import

    write_previews(StoreIndex.open_all(out, {}))
