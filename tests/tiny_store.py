"""A small store written by hand, independent of the project's own writer."""

import copy
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

TASKS = ("interactive", "referring", "reasoning")
#: Changes an image's encoded bytes and record before they are written: (image number, bytes, record).
Damage = Callable[[int, bytes, dict[str, Any]], bytes | None]


def write_store(
    folder: Path,
    images: int = 24,
    size: int = 40,
    per_image: tuple[int, int, int] = (3, 2, 1),
    images_per_shard: int = 10,
    split: str = "train",
    damage: Damage | None = None,
) -> Path:
    """Images of random blocks; image i has ``per_image`` samples of each task, every fifth fewer."""
    rng = np.random.default_rng(0)
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for shard_number in range(-(-images // images_per_shard)):
        shard = f"shards/{split}-{shard_number:05d}.tar"
        out = io.BytesIO()
        first = shard_number * images_per_shard
        for i in range(first, min(images, first + images_per_shard)):
            height, width = size, size + (i % 3) * 8
            record = _record(i, height, width, per_image, split, rng)
            picture = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
            kind = "png" if i % 2 else "jpg"
            record["image"]["file"] = f"{record['key']}.{kind}"
            encoded = cv2.imencode(f".{kind}", picture)[1].tobytes()
            samples = copy.deepcopy(record["samples"])  # the index tells of the undamaged ones
            areas = [int(coco_mask.area(_bytes(s["mask"]))) for s in samples]
            if damage is not None:
                encoded = damage(i, encoded, record) or encoded
            offset = out.tell()
            _add(out, record["image"]["file"], encoded)
            _add(out, f"{record['key']}.json", json.dumps(record).encode("utf-8", "surrogateescape"))
            nbytes = out.tell() - offset
            for n, (sample, area) in enumerate(zip(samples, areas, strict=True)):
                rows.append(
                    {
                        "sample_id": sample["sample_id"],
                        "key": record["key"],
                        "n": n,
                        "task": sample["task"],
                        "subtask": sample["subtask"],
                        "source": "tiny",
                        "category_id": 1,
                        "category": "Building",
                        "scene": f"scene{i // 4}",
                        "split": split,
                        "licence": "CC0-1.0",
                        "shard": shard,
                        "offset": offset,
                        "nbytes": nbytes,
                        "height": height,
                        "width": width,
                        "mask_area": area,
                        "box_area": area,
                        "words": 3,
                    }
                )
        out.write(b"\0" * 1024)
        (folder / shard).write_bytes(out.getvalue())
    if rows:
        pq.write_table(pa.Table.from_pylist(rows), folder / "index.parquet")
    card = {"version": 1, "samples": len(rows), "shards": {}}
    for path in sorted((folder / "shards").iterdir()):
        card["shards"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "dataset.json").write_text(json.dumps(card))
    return folder


def _record(
    i: int, height: int, width: int, per_image: tuple[int, int, int], split: str, rng: np.random.Generator
) -> dict[str, Any]:
    key = f"img_{i:04d}"
    samples = []
    for t, task in enumerate(TASKS):
        for j in range(per_image[t] - (i % 5 == 0 and per_image[t] > 1)):
            y, x = int(rng.integers(0, height // 2)), int(rng.integers(0, width // 2))
            mask = np.zeros((height, width), np.uint8, order="F")
            mask[y : y + 9, x : x + 11] = 1
            rle = coco_mask.encode(mask)
            box = [x / width, y / height, (x + 11) / width, (y + 9) / height]
            samples.append(
                {
                    "sample_id": f"tiny/{key}/{task}/{j}",
                    "task": task,
                    "subtask": "box" if t == 0 else "object",
                    "category_id": 1,
                    "category": "Building",
                    "instruction": f"the {task} block {j} of picture {i}",
                    "answer": "It is there." if t == 2 else "",
                    "box": box if t == 0 else None,
                    "points": None,
                    "mask": {"size": [height, width], "counts": rle["counts"].decode()},
                    "quality": None,
                }
            )
    return {
        "key": key,
        "image": {"file": "", "height": height, "width": width},
        "source": "tiny",
        "scene": f"scene{i // 4}",
        "split": split,
        "licence": "CC0-1.0",
        "samples": samples,
    }


def _bytes(rle: dict[str, Any]) -> dict[str, Any]:
    return {"size": rle["size"], "counts": rle["counts"].encode()}


def _add(out: io.BytesIO, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    out.write(header.tobuf(tarfile.USTAR_FORMAT))
    out.write(data + b"\0" * (-len(data) % 512))
