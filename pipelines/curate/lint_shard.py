"""The check of one shard: its bytes against the card, its records against the index and the rules."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.curate.lint_pictures import Seen, mask_faults, picture_faults, thumbnail
from pipelines.curate.lint_text import Author, character_faults, script_of, text_faults
from pipelines.labels.taxonomy import taxonomy
from pipelines.storage.filesystem import open_filesystem
from pipelines.store.fetch import FetchStats, RangeFetcher
from pipelines.store.index import StoreIndex
from pipelines.store.record import BadRecord, Fragment, decode_image, decode_sample, parse_fragment
from pipelines.store.scan import WINDOW, Place, places
from unigeoseg.samples.prompts import parse_coordinates
from unigeoseg.samples.sample import Sample
from unigeoseg.tasks import ABSENT, INTERACTIVE

Error = dict[str, str]
#: Half of the last printed digit, and a little.
_PRINTED = 0.0006


@dataclass(frozen=True)
class Rules:
    """What records must obey.

    Attributes:
        limits: ``min_area`` and ``max_area`` of the construction rules.
        authors: who wrote the text of each source.
    """

    limits: dict[str, float]
    authors: dict[str, Author]


@dataclass
class Finding:
    """What the check of a shard found; ``scripts`` names the samples by the script of their text."""

    records: int = 0
    errors: list[Error] = field(default_factory=list)
    images: list[Seen] = field(default_factory=list)
    scripts: dict[str, list[str]] = field(default_factory=dict)

    def add(self, sample_id: str, reason: str) -> None:
        """Notes an error."""
        self.errors.append({"sample_id": sample_id, "reason": reason})


def check_shard(
    index: StoreIndex,
    shard: str,
    entry: dict[str, Any] | None,
    rules: Rules,
    tell: Callable[[int], None] | None = None,
) -> Finding:
    """Reads a shard once, from its first byte to its last, and checks everything in it.

    Args:
        index: its rows alone.
        shard: path in the store.
        entry: what the card says of it.
        rules: what a record must obey.
        tell: is called with the number of records done.

    Raises:
        UserError: the shard cannot be reached, though it is there.
    """
    found = Finding(records=len(index))
    filesystem, root = open_filesystem(index.store)
    if not filesystem.exists(f"{root}/{shard}"):
        found.add(shard, f"shard_missing: the file is not there; {len(index)} records are lost")
        return found
    size = filesystem.size(f"{root}/{shard}")
    if entry is None:
        found.add(shard, "shard_unknown: dataset.json does not list it")
    elif size != entry["bytes"]:
        found.add(shard, f"shard_size: {size} bytes, dataset.json says {entry['bytes']}")
    checksum = hashlib.sha256()
    fetcher, stats = RangeFetcher(index.store), FetchStats()
    end = 0
    for group in [*_spans(places(index)), []]:
        until = min(size, group[-1].offset + group[-1].nbytes) if group else size
        data = fetcher.fetch([(shard, end, until - end)], stats)[0] if until > end else b""
        checksum.update(data)
        for place in group:
            first = place.offset - end
            _image(index, place, data[max(first, 0) : first + place.nbytes], rules, found)
            if tell is not None:
                tell(place.rows)
        end = max(end, until)
    if entry is not None and size == entry["bytes"] and checksum.hexdigest() != entry.get("sha256"):
        found.add(shard, "checksum: the bytes are not those that dataset.json was written for")
    return found


def _spans(found: Sequence[Place]) -> list[list[Place]]:
    """Neighbouring images, about :data:`WINDOW` bytes together."""
    spans: list[list[Place]] = []
    start = 0
    for place in sorted(found, key=lambda place: place.offset):
        if not spans or place.offset + place.nbytes - start > WINDOW:
            spans.append([])
            start = place.offset
        spans[-1].append(place)
    return spans


def _image(index: StoreIndex, place: Place, data: bytes, rules: Rules, found: Finding) -> None:
    rows = index.table.slice(place.row, place.rows).to_pylist()
    try:
        fragment = parse_fragment(data)
        pixels = decode_image(fragment.image, rows[0]["height"], rows[0]["width"])
    except BadRecord as error:
        for row in rows:
            found.add(row["sample_id"], f"{error.reason}: {error.detail}")
        return
    digest = hashlib.blake2b(fragment.image, digest_size=16).digest()
    scene = f"{rows[0].get('source')}/{rows[0].get('scene')}"
    found.images.append(Seen(digest, rows[0]["split"], scene, rows[0]["sample_id"], thumbnail(pixels)))
    for reason in [*_agrees(fragment, rows), *picture_faults(pixels)]:
        found.add(rows[0]["sample_id"], reason)
    texts: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    there = [row for row in rows if row.get("subtask") != ABSENT]
    shown = frozenset(row["category"] for row in there if row.get("category"))
    for row in rows:
        try:
            sample = decode_sample(
                fragment.record, row["n"], row["height"], row["width"], row.get("mask_area")
            )
        except BadRecord as error:
            found.add(row["sample_id"], f"{error.reason}: {error.detail}")
            continue
        assert sample.mask is not None
        faults = _record(sample, row, rules, shown)
        for reason in [*faults, *mask_faults(sample.mask, pixels)]:
            found.add(row["sample_id"], reason)
        found.scripts.setdefault(script_of(sample.instruction), []).append(row["sample_id"])
        mask = hashlib.blake2b(sample.mask.tobytes(), digest_size=16).digest()
        texts[sample.instruction].append((row["sample_id"], mask))
    for members in texts.values():
        _same_text(members, found)


def _agrees(fragment: Fragment, rows: list[dict[str, Any]]) -> list[str]:
    """Where an image's JSON and its rows of the index differ."""
    record = fragment.record
    reasons = [
        f"index: {name} is {row[name]!r} in the index, {record.get(name)!r} in the shard"
        for row in rows[:1]
        for name in ("key", "split", "source", "scene", "licence")
        if name in row and row[name] != record.get(name)
    ]
    missing = sorted(set(range(len(record["samples"]))) - {row["n"] for row in rows})
    if missing:
        reasons.append(f"index: the samples number {missing} of this image are not in the index")
    return reasons


def _box_area(mask: NDArray[np.uint8]) -> int:
    """Pixels of the tight box; 0 for an empty mask."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)) if len(rows) else 0


def _record(sample: Sample, row: dict[str, Any], rules: Rules, shown: frozenset[str]) -> list[str]:
    """What is wrong with one record."""
    mask = sample.mask
    assert mask is not None
    found = []
    if (sample.sample_id, sample.task) != (row["sample_id"], row["task"]):
        found.append(f"index: the shard holds {sample.sample_id} ({sample.task}) in its place")
    area = int(np.count_nonzero(mask))
    if area != row["mask_area"]:
        found.append(f"mask_area: the mask has {area} pixels, the index says {row['mask_area']}")
    around = _box_area(mask)
    if row.get("box_area") not in (None, around):  # stores of earlier versions do not tell
        found.append(f"box_area: the mask's box has {around} pixels, the index says {row['box_area']}")
    share = area / mask.size
    least, most = rules.limits.get("min_area", 0.0), rules.limits.get("max_area", 1.0)
    made_here = row["source"] in rules.authors  # ready samples are taken as they are
    if area and made_here and not least <= share <= most:
        found.append(f"area: {share:.2%} of the tile, the rules allow {least:.2%} to {most:.2%}")
    found += _category(sample)
    if sample.subtask == ABSENT and sample.category in shown:
        found.append(f"absent: another sample of the image shows {sample.category}")
    # What is said of the other views stands in for the text, so it has to be as good.
    other = [
        replace(sample, instruction=told[0], answer=told[1]) for told in sample.views if told is not None
    ]
    for one in [sample, *other]:
        words = [] if _category(sample) else text_faults(one, rules.authors.get(row["source"]), shown)
        words += character_faults(one.instruction, one.answer)
        found += [fault for fault in words if fault not in found]
    if sample.task == INTERACTIVE:
        found += _prompt(sample, mask)
    else:
        box, points = parse_coordinates(sample.instruction)
        numbers = [*(box or ()), *(v for point in points or () for v in point)]
        if any(not 0 <= v <= 1 for v in numbers):
            found.append("outside: the instruction names a place outside the picture")
    return found


def _category(sample: Sample) -> list[str]:
    """A category that the taxonomy has, or a name of the source's own."""
    if sample.category_id == 0:  # ready samples of a benchmark may have a name alone, or none
        return []
    if sample.category_id not in taxonomy():
        return [f"category: {sample.category_id} is no id of the taxonomy"]
    return [] if sample.category else ["category: the id has no name beside it"]


def _prompt(sample: Sample, mask: NDArray[np.uint8]) -> list[str]:
    """What is wrong with the coordinates of an interactive record."""
    height, width = mask.shape
    box, points = parse_coordinates(sample.instruction)
    if sample.box is not None:
        if box is None or max(abs(a - b) for a, b in zip(box, sample.box, strict=True)) > _PRINTED:
            return ["coordinates: the sentence does not print the box"]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return ["coordinates: a box around an empty mask"]
        tight = (
            columns[0] / width,
            rows[0] / height,
            (columns[-1] + 1) / width,
            (rows[-1] + 1) / height,
        )
        off = max(abs(a - b) for a, b in zip(tight, sample.box, strict=True))
        return ["coordinates: the box is not tight around the mask"] if off > 1.0 / min(mask.shape) else []
    given = sample.points or ()
    printed = points or ()
    if len(given) != len(printed) or any(
        abs(a - b) > _PRINTED for p, q in zip(given, printed, strict=True) for a, b in zip(p, q, strict=True)
    ):
        return ["coordinates: the sentence does not print the points"]
    return [
        f"coordinates: point {point} lies outside the mask"
        for point in given
        if not mask[min(int(point[1] * height), height - 1), min(int(point[0] * width), width - 1)]
    ]


def _same_text(members: list[tuple[str, bytes]], found: Finding) -> None:
    """Samples of one image that share an instruction: twins of one mask, or one text for two masks."""
    for place, (name, digest) in enumerate(members):
        if any(other == digest for _, other in members[:place]):
            found.add(name, "duplicate: same image, instruction and mask")
        elif place:
            found.add(name, "ambiguous: same instruction for another mask")
