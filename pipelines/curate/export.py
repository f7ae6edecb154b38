"""A store in the forms that others read: WebDataset shards, COCO annotations, GeoSeg's release layout."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import cv2
import numpy as np
import pyarrow.compute as pc
from pycocotools import mask as coco

from pipelines.build.progress import Steps
from pipelines.curate.export_target import Target
from pipelines.labels.taxonomy import taxonomy
from pipelines.storage.ahead import ahead, cores
from pipelines.store.index import StoreIndex
from pipelines.store.record import BadRecord, decode_mask, parse_fragment
from pipelines.store.scan import Places, check_schema, fragments, of_split, open_all_splits, places
from pipelines.store.writer import fitting_name, tar_member
from unigeoseg.errors import UserError
from unigeoseg.tasks import ABSENT, COLLECTIVE, INTERACTIVE, REFERRING

FORMS = ("webdataset", "coco", "release-layout")
_SHARD_BYTES = 256 * 1024 * 1024
#: Bytes of a key in a WebDataset member, whose name holds "-000.image.jpg" beside it.
_MOST_OF_KEY = 80
#: Images whose files are made and written at a time.
_WRITES_AT_ONCE = 8
#: Rows of a picture from which its masks are made on a thread for each CPU; with smaller ones the threads
#: wait for one another, and take twice as long as one.
_LARGE = 256
#: Categories that the taxonomy lacks are numbered from here in COCO files.
_OWN_CATEGORIES = 1001
_RELEASE_TASK = {REFERRING: "ref", INTERACTIVE: "intera"}


def export_store(store: str, form: str, out: str, progress: bool = True) -> dict[str, Any]:
    """Writes all splits of a store in another form.

    - ``webdataset``: ``<split>-00000.tar``; a record a sample: ``image.png|jpg``, ``mask.png`` (0 and 255),
      ``json`` (all fields but the mask). An image with three samples is in it three times.
    - ``coco``: ``images/<split>/`` and ``annotations/instances_<split>.json``; an annotation a sample, its
      mask as compressed RLE, the instruction and the other fields beside it.
    - ``release-layout``: ``<split>.json`` of ``{img, mask, json}`` as GeoSeg-1M has it.

    The same store gives the same bytes. An interrupted export goes on after its last finished shard when it
    is called again.

    Args:
        store: a finished store.
        form: one of :data:`FORMS`.
        out: folder or ``s3://`` prefix, empty, new, or with an unfinished export of the same store and form.
        progress: shows progress on stderr.

    Returns:
        ``{"store", "to", "out", "samples", "images", "files"}``.

    Raises:
        UserError: no such store, a damaged record, ``out`` holds files or cannot be written.
    """
    index = open_all_splits(store)
    check_schema(index)
    shards = json.dumps([form, index.card.get("shards", []), len(index)], sort_keys=True)
    target = Target(out, {"export": hashlib.sha256(shards.encode()).hexdigest()})
    total, done = len(places(index)), Counter[str]()
    try:
        with Steps(f"export to {form}", "image", total, progress) as bar:
            for split in sorted(pc.unique(index.table["split"]).to_pylist()):
                done.update(_WRITERS[form](_Part(target, split, index, of_split(index, split), bar)))
        target.close()
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error}; remove what is there, make room or name another --out"
        ) from error
    counts = {"samples": done["samples"], "images": total, "files": done["files"]}
    return {"store": store, "to": form, "out": out} | counts


_Image = tuple[dict[str, Any], bytes]


@dataclass(frozen=True)
class _Part:
    """A split on its way into another form; ``whole`` is the index of all splits."""

    target: Target
    split: str
    whole: StoreIndex
    index: StoreIndex
    bar: Steps

    def images(self, wanted: Places) -> Iterator[_Image]:
        """Records and their images, in order."""
        for place, data in fragments(self.index.store, wanted):
            try:
                fragment = parse_fragment(data)
            except BadRecord as error:
                raise UserError(
                    f"{self.index.store}/{place.shard} at byte {place.offset}: {error.detail}; "
                    "`unigeoseg data lint` names what is damaged"
                ) from error
            yield fragment.record, fragment.image

    def finished(self, write: Callable[[_Image], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """For each shard, what ``write`` gave for its images, made now or by an earlier export.

        Args:
            write: puts an image's files; runs on several threads.
        """
        for number, run in enumerate(places(self.index).by_shard()):
            name = f"{self.split}-{number:05d}"
            note = self.target.note(name)
            if note is None:
                found = []
                for one in ahead(write, self.images(run), _WRITES_AT_ONCE):
                    found.append(one)
                    self.bar.update()
                note = {"images": found}
                self.target.keep(name, note)
            else:
                self.bar.update(len(run))
            yield from note["images"]

    def again(self) -> Iterator[dict[str, Any]]:
        """The same once more, after all was finished, a shard in memory at a time."""
        for number, _ in enumerate(places(self.index).by_shard()):
            yield from (self.target.note(f"{self.split}-{number:05d}") or {"images": []})["images"]


def _png_mask(record: dict[str, Any], sample: dict[str, Any]) -> bytes:
    try:
        mask = decode_mask(sample["mask"], record["image"]["height"], record["image"]["width"])
    except BadRecord as error:
        raise UserError(f"{sample['sample_id']}: {error}; `unigeoseg data lint` names all such") from error
    encoded: np.ndarray = cv2.imencode(".png", mask * 255)[1]
    return encoded.tobytes()


def _dump(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, sort_keys=True).encode("utf-8")


def _webdataset(part: _Part) -> dict[str, int]:
    found, number, after, samples = places(part.index), 0, (0, 0), 0
    while (note := part.target.note(f"{part.split}-{number:05d}")) is not None:
        number, after, samples = number + 1, (note["after"][0], note["after"][1]), note["samples"]
    part.bar.update(after[0])
    records = _records(part, found[after[0] :], *after)
    record = next(records, None)
    while record is not None:
        size = 0
        with part.target.open(f"{part.split}-{number:05d}.tar") as handle:
            while record is not None and size < _SHARD_BYTES:
                handle.write(record[0])
                size += len(record[0])
                samples, after = samples + 1, record[1]
                record = next(records, None)
            handle.write(b"\0" * 1024)
        part.target.keep(f"{part.split}-{number:05d}", {"after": after, "samples": samples})
        number += 1
    return {"samples": samples, "files": number}


def _records(part: _Part, wanted: Places, image: int, skip: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Each sample's members, and the place behind it: an image, and how many of its samples are written."""
    threads = cores() if np.median(part.index.table["height"]) >= _LARGE else 1
    for members in ahead(_members, part.images(wanted), threads):
        for n in range(skip, len(members)):
            yield members[n], (image, n + 1) if n + 1 < len(members) else (image + 1, 0)
        image, skip = image + 1, 0
        part.bar.update()


def _members(one: _Image) -> list[bytes]:
    record, image = one
    extension = record["image"]["file"].rpartition(".")[2]
    shared = {name: record[name] for name in ("source", "scene", "split", "licence")}
    found = []
    for n, sample in enumerate(record["samples"]):
        # WebDataset takes everything up to the first dot as the record's key.
        key = f"{fitting_name(record['key'].replace('.', '_'), _MOST_OF_KEY)}-{n:03d}"
        fields = shared | {k: v for k, v in sample.items() if k != "mask"}
        found.append(
            tar_member(f"{key}.image.{extension}", image)
            + tar_member(f"{key}.mask.png", _png_mask(record, sample))
            + tar_member(f"{key}.json", _dump(fields))
        )
    return found


def _coco(part: _Part) -> dict[str, int]:
    categories = _categories(part.whole)

    def write(one: _Image) -> dict[str, Any]:
        record, image = one
        name = record["image"]["file"]
        part.target.write(f"images/{part.split}/{name}", image)
        size = {"height": record["image"]["height"], "width": record["image"]["width"]}
        facts = {"scene": record["scene"], "source": record["source"], "licence": record["licence"]}
        notes = [_annotation(sample, categories) for sample in record["samples"]]
        return {"image": {"file_name": name} | size | facts, "notes": notes}

    images = samples = 0
    for found in part.finished(write):
        images, samples = images + 1, samples + len(found["notes"])
    with part.target.open(f"annotations/instances_{part.split}.json") as handle:
        _coco_file(handle, part, categories)
    return {"samples": samples, "files": images + 1}


def _coco_file(handle: IO[bytes], part: _Part, categories: dict[tuple[int, str], dict[str, Any]]) -> None:
    rows = sorted({row["id"]: row for row in categories.values()}.values(), key=lambda row: row["id"])
    handle.write(b'{"info": ' + _dump({"description": f"exported from a GeoSeg store, split {part.split}"}))
    handle.write(b',\n"categories": ' + _dump(rows))
    handle.write(b',\n"images": [\n')
    for place, found in enumerate(part.again(), 1):
        handle.write((b",\n" if place > 1 else b"") + _dump({"id": place} | found["image"]))
    handle.write(b'],\n"annotations": [\n')
    number = 0
    for place, found in enumerate(part.again(), 1):
        for note in found["notes"]:
            number += 1
            row = {"id": number, "image_id": place} | note
            handle.write((b",\n" if number > 1 else b"") + _dump(row))
    handle.write(b"]}\n")


def _annotation(sample: dict[str, Any], categories: dict[tuple[int, str], dict[str, Any]]) -> dict[str, Any]:
    rle = sample["mask"] | {"counts": sample["mask"]["counts"].encode("ascii")}
    category = categories[sample["category_id"], sample["category"]]["id"]
    kept = ("sample_id", "task", "subtask", "instruction", "answer", "box", "points", "category")
    return {
        "category_id": category,
        "segmentation": sample["mask"],
        "bbox": [float(v) for v in coco.toBbox(rle)],
        "area": int(coco.area(rle)),
        "iscrowd": 0,
    } | {("prompt_box" if name == "box" else name): sample.get(name) for name in kept}


def _categories(index: StoreIndex) -> dict[tuple[int, str], dict[str, Any]]:
    """COCO's category of each (taxonomy id, name) of a whole store: the same in the files of all its splits.

    Names outside the taxonomy are numbered in alphabetical order, whatever number stands with them.
    """
    pairs = index.table.group_by(["category_id", "category"]).aggregate([]).to_pydict()
    named = sorted(zip(pairs["category_id"], pairs["category"], strict=True))
    others = sorted({name for number, name in named if number not in taxonomy()})
    own = {name: number for number, name in enumerate(others, _OWN_CATEGORIES)}
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for number, name in named:
        known = taxonomy().get(number)
        place, called = (own[name], name or "unnamed") if known is None else (number, known.name)
        found[number, name] = {"id": place, "name": called, "supercategory": "none"}
    return found


def _release(part: _Part) -> dict[str, int]:
    def write(one: _Image) -> dict[str, Any]:
        record, image = one
        entries: list[dict[str, str]] = []
        written: set[str] = set()
        for n, sample in enumerate(record["samples"]):
            # The task is read from the path, so an image stands once under each of its tasks.
            place = f"{part.split}/{_RELEASE_TASK.get(sample['task'], 'reason')}"
            paths = {
                "img": f"{place}/images/{record['image']['file']}",
                "mask": f"{place}/masks/{record['key']}_{n:03d}.png",
                "json": f"{place}/texts/{record['key']}_{n:03d}.json",
            }
            if paths["img"] not in written:
                part.target.write(paths["img"], image)
                written.add(paths["img"])
            part.target.write(paths["mask"], _png_mask(record, sample))
            reason = [sample["answer"]] if sample.get("answer") else []
            part.target.write(paths["json"], _dump({"question": [sample["instruction"]], "reason": reason}))
            kind = sample.get("subtask")
            entries.append(paths | ({"kind": str(kind)} if kind in (COLLECTIVE, ABSENT) else {}))
        return {"entries": entries, "files": len(written) + 2 * len(entries)}

    samples, files = 0, 1
    for found in part.finished(write):
        samples, files = samples + len(found["entries"]), files + found["files"]
    entries = (
        json.dumps([e], ensure_ascii=False, indent=0)[2:-2] for one in part.again() for e in one["entries"]
    )
    with part.target.open(f"{part.split}.json") as handle:
        for number, entry in enumerate(entries):
            handle.write((",\n" if number else "[\n").encode() + entry.encode("utf-8"))
        handle.write(b"\n]" if samples else b"[]")
    return {"samples": samples, "files": files}


_WRITERS: dict[str, Callable[[_Part], dict[str, int]]] = {
    "webdataset": _webdataset,
    "coco": _coco,
    "release-layout": _release,
}
