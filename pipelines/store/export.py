"""A store in the forms that others read: WebDataset shards, COCO annotations, GeoSeg's release layout."""

import json
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import cv2
import numpy as np
import pyarrow.compute as pc
from pycocotools import mask as coco

from pipelines.build.progress import Steps
from pipelines.build.taxonomy import taxonomy
from pipelines.storage import is_remote, open_filesystem, storage_errors
from pipelines.store.index import StoreIndex, no_access
from pipelines.store.record import BadRecord, decode_mask, parse_fragment
from pipelines.store.scan import check_schema, fragments, of_split, open_all_splits, places
from pipelines.store.writer import atomic_write, fitting_name, tar_member
from unigeoseg.errors import UserError
from unigeoseg.tasks import INTERACTIVE, REFERRING

FORMS = ("webdataset", "coco", "release-layout")
_SHARD_BYTES = 256 * 1024 * 1024
#: Bytes of a key in a WebDataset member, whose name holds "-000.image.jpg" beside it.
_MOST_OF_KEY = 80
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

    Args:
        store: a finished store.
        form: one of :data:`FORMS`.
        out: folder or ``s3://`` prefix, empty or new.
        progress: shows progress on stderr.

    Returns:
        ``{"store", "to", "out", "samples", "images", "files"}``.

    Raises:
        UserError: no such store, a damaged record, ``out`` holds files or cannot be written.
    """
    index = open_all_splits(store)
    check_schema(index)
    target = _Target(out)
    counts = {"samples": 0, "images": 0}
    try:
        with Steps(f"export to {form}", "image", len(places(index)), progress) as bar:
            for split in sorted(pc.unique(index.table["split"]).to_pylist()):
                part = of_split(index, split)
                _WRITERS[form](target, split, index, _counted(_images(part), counts, bar))
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error}; remove what is there, make room or name another --out"
        ) from error
    return {"store": store, "to": form, "out": out} | counts | {"files": target.files}


_Image = tuple[dict[str, Any], bytes]


class _Target:
    """The folder that is written to."""

    def __init__(self, out: str) -> None:
        self._filesystem, self._root = open_filesystem(out)
        self._remote = is_remote(out)
        self.files = 0
        try:
            there = self._filesystem.exists(self._root) and self._filesystem.ls(self._root, detail=False)
        except storage_errors() as error:
            raise UserError(no_access(out, error)) from error
        if there:
            raise UserError(f"--out {out} holds files already: name an empty or new folder")

    def open(self, name: str) -> Any:
        """A context with a file that appears when it is complete."""
        self.files += 1
        return atomic_write(self._filesystem, f"{self._root}/{name}", self._remote)

    def write(self, name: str, data: bytes) -> None:
        """A whole file."""
        with self.open(name) as handle:
            handle.write(data)


def _images(index: StoreIndex) -> Iterator[_Image]:
    for place, data in fragments(index.store, places(index)):
        try:
            fragment = parse_fragment(data)
        except BadRecord as error:
            raise UserError(
                f"{index.store}/{place.shard} at byte {place.offset}: {error.detail}; "
                "`unigeoseg data lint` names what is damaged"
            ) from error
        yield fragment.record, fragment.image


def _counted(images: Iterator[_Image], counts: dict[str, int], bar: Steps) -> Iterator[_Image]:
    for record, image in images:
        counts["images"] += 1
        counts["samples"] += len(record["samples"])
        yield record, image
        bar.update()


def _png_mask(record: dict[str, Any], sample: dict[str, Any]) -> bytes:
    try:
        mask = decode_mask(sample["mask"], record["image"]["height"], record["image"]["width"])
    except BadRecord as error:
        raise UserError(f"{sample['sample_id']}: {error}; `unigeoseg data lint` names all such") from error
    encoded: np.ndarray = cv2.imencode(".png", mask * 255)[1]
    return encoded.tobytes()


def _dump(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, sort_keys=True).encode("utf-8")


def _webdataset(target: _Target, split: str, whole: StoreIndex, images: Iterator[_Image]) -> None:
    number, records = 0, _records(images)
    record = next(records, None)
    while record is not None:
        size = 0
        with target.open(f"{split}-{number:05d}.tar") as handle:
            while record is not None and size < _SHARD_BYTES:
                handle.write(record)
                size += len(record)
                record = next(records, None)
            handle.write(b"\0" * 1024)
        number += 1


def _records(images: Iterator[_Image]) -> Iterator[bytes]:
    for record, image in images:
        extension = record["image"]["file"].rpartition(".")[2]
        shared = {name: record[name] for name in ("source", "scene", "split", "licence")}
        for n, sample in enumerate(record["samples"]):
            # WebDataset takes everything up to the first dot as the record's key.
            key = f"{fitting_name(record['key'].replace('.', '_'), _MOST_OF_KEY)}-{n:03d}"
            fields = shared | {k: v for k, v in sample.items() if k != "mask"}
            yield (
                tar_member(f"{key}.image.{extension}", image)
                + tar_member(f"{key}.mask.png", _png_mask(record, sample))
                + tar_member(f"{key}.json", _dump(fields))
            )


def _coco(target: _Target, split: str, whole: StoreIndex, images: Iterator[_Image]) -> None:
    categories = _categories(whole)
    listed: list[bytes] = []
    number = 0
    with tempfile.TemporaryFile() as notes:  # annotations wait on the disk until all images are listed
        for place, (record, image) in enumerate(images, 1):
            name = record["image"]["file"]
            target.write(f"images/{split}/{name}", image)
            size = {"height": record["image"]["height"], "width": record["image"]["width"]}
            facts = {"scene": record["scene"], "source": record["source"], "licence": record["licence"]}
            listed.append(_dump({"id": place, "file_name": name} | size | facts))
            for sample in record["samples"]:
                number += 1
                note = _annotation(number, place, sample, categories)
                notes.write((b",\n" if number > 1 else b"") + _dump(note))
        notes.seek(0)
        with target.open(f"annotations/instances_{split}.json") as handle:
            _coco_file(handle, split, categories, listed, notes)


def _coco_file(
    handle: IO[bytes],
    split: str,
    categories: dict[tuple[int, str], dict[str, Any]],
    listed: list[bytes],
    notes: IO[bytes],
) -> None:
    rows = sorted({row["id"]: row for row in categories.values()}.values(), key=lambda row: row["id"])
    handle.write(b'{"info": ' + _dump({"description": f"exported from a GeoSeg store, split {split}"}))
    handle.write(b',\n"categories": ' + _dump(rows))
    handle.write(b',\n"images": [\n' + b",\n".join(listed) + b'],\n"annotations": [\n')
    while piece := notes.read(1 << 20):
        handle.write(piece)
    handle.write(b"]}\n")


def _annotation(
    number: int, image: int, sample: dict[str, Any], categories: dict[tuple[int, str], dict[str, Any]]
) -> dict[str, Any]:
    rle = sample["mask"] | {"counts": sample["mask"]["counts"].encode("ascii")}
    category = categories[sample["category_id"], sample["category"]]["id"]
    kept = ("sample_id", "task", "subtask", "instruction", "answer", "box", "points", "category")
    return {
        "id": number,
        "image_id": image,
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


def _release(target: _Target, split: str, whole: StoreIndex, images: Iterator[_Image]) -> None:
    entries: list[dict[str, str]] = []
    for record, image in images:
        written: set[str] = set()
        for n, sample in enumerate(record["samples"]):
            # The task is read from the path, so an image stands once under each of its tasks.
            place = f"{split}/{_RELEASE_TASK.get(sample['task'], 'reason')}"
            paths = {
                "img": f"{place}/images/{record['image']['file']}",
                "mask": f"{place}/masks/{record['key']}_{n:03d}.png",
                "json": f"{place}/texts/{record['key']}_{n:03d}.json",
            }
            if paths["img"] not in written:
                target.write(paths["img"], image)
                written.add(paths["img"])
            target.write(paths["mask"], _png_mask(record, sample))
            reason = [sample["answer"]] if sample.get("answer") else []
            target.write(paths["json"], _dump({"question": [sample["instruction"]], "reason": reason}))
            entries.append(paths)
    target.write(f"{split}.json", json.dumps(entries, ensure_ascii=False, indent=0).encode("utf-8"))


_WRITERS: dict[str, Callable[[_Target, str, StoreIndex, Iterator[_Image]], None]] = {
    "webdataset": _webdataset,
    "coco": _coco,
    "release-layout": _release,
}
