"""The store that loaders are measured on: so many images of a given store, a sample each, in one format."""

import json
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pyarrow as pa

from pipelines.config import Config
from pipelines.store.fetch import FetchStats, RangeFetcher
from pipelines.store.index import StoreIndex
from pipelines.store.record import decode_image, parse_fragment
from pipelines.store.writer import INDEX_SCHEMA, IndexWriter, ShardWriter, shard_path, write_card
from unigeoseg.errors import UserError

FORMATS: Final = ("jpeg", "png")
_QUALITY: Final = 95
_SHARD_BYTES: Final = 256 << 20
_AT_ONCE: Final = 128


def write_bench_store(index: StoreIndex, images: int, kind: str, folder: Path) -> str:
    """Writes ``images`` images with one sample each; where the store has fewer, they come again.

    Args:
        index: of the store that the images come from.
        images: how many.
        kind: ``jpeg`` (quality 95) or ``png``; an image that is that already keeps its bytes.
        folder: of the new store.

    Raises:
        UserError: the store's images cannot be read.
    """
    firsts = np.flatnonzero(np.diff(index.images, prepend=-1))
    chosen = firsts[np.arange(images) * len(firsts) // images] if images < len(firsts) else firsts
    rows = [int(chosen[i % len(chosen)]) for i in range(images)]
    fetcher, writer = RangeFetcher(index.store), _Writer(str(folder))
    for begin in range(0, images, _AT_ONCE):
        entries = index.rows(rows[begin : begin + _AT_ONCE])
        places = [(e["shard"], e["offset"], e["nbytes"]) for e in entries]
        for i, data in enumerate(fetcher.fetch(places, FetchStats()), begin):
            fragment, entry = parse_fragment(data), entries[i - begin]
            image = encode(fragment.image, entry["height"], entry["width"], kind)
            writer.add(_document(fragment.record, entry["n"], f"{i:07d}", kind), image)
    writer.finish()
    return str(folder)


class _Writer:
    """Shards of about 256 MB, the index, and a card with what a reader needs."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._shard: ShardWriter | None = None
        self._shards: list[dict[str, Any]] = []
        self._index, self._samples = IndexWriter(store), 0

    def add(self, document: dict[str, Any], image: bytes) -> None:
        """Appends an image; all of one split."""
        if self._shard is None:
            split = document["split"]
            self._shard = ShardWriter(self._store, shard_path(split, len(self._shards)), split)
        self._shard.add(document, image)
        if self._shard.bytes >= _SHARD_BYTES:
            self._close()

    def finish(self) -> None:
        """Ends the store."""
        self._close()
        self._index.close()
        write_card(self._store, {"version": 1, "samples": self._samples, "shards": self._shards})

    def _close(self) -> None:
        if self._shard is None:
            return
        self._shards.append(self._shard.close())
        self._samples += len(self._shard.rows)
        self._index.add(pa.Table.from_pylist(self._shard.rows, schema=INDEX_SCHEMA))
        self._shard = None


def encode(data: bytes, height: int, width: int, kind: str) -> bytes:
    """An image in another format."""
    if (kind == "jpeg") == (data[:2] == b"\xff\xd8"):
        return data
    pixels = cv2.cvtColor(decode_image(data, height, width), cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if kind == "jpeg" else []
    done, found = cv2.imencode(".jpg" if kind == "jpeg" else ".png", pixels, options)
    if not done:
        raise UserError(f"an image of {height} x {width} pixels cannot be written as {kind}")
    return bytes(found.tobytes())


def _document(record: dict[str, Any], n: int, key: str, kind: str) -> dict[str, Any]:
    """An image's record with one sample, under a new key."""
    copy = json.loads(json.dumps({**record, "samples": [record["samples"][n]]}))
    copy["key"] = key
    copy["image"]["file"] = f"{key}.{'jpg' if kind == 'jpeg' else 'png'}"
    copy["samples"][0]["sample_id"] += f"/{key}"
    return dict(copy)


def bench_config(config: Config, split: str, images: int) -> Config:
    """The run's configuration, for one worker, one sample an image, and each image about once.

    Raises:
        UserError: there are fewer images than positions in a batch.
    """
    steps = images // config.train.global_batch
    if not steps:
        raise UserError(f"--samples {images}: less than train.global_batch={config.train.global_batch}")
    pts = config.pts.model_copy(
        update={"schedule": "constant", "base": "natural", "warmup": [], "record": []}
    )
    return config.model_copy(
        update={
            "pts": pts,
            "train": config.train.model_copy(update={"micro_batch": None, "steps": steps}),
            "scale": config.scale.model_copy(update={"workers": 1}),
            "data": config.data.model_copy(update={"split": split, "instructions_per_image": 1}),
        }
    )
