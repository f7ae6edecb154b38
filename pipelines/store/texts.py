"""The text of a store, for tokenizers and statistics: instructions and answers, without decoding an image."""

from collections.abc import Iterator

import numpy as np

from pipelines.storage.retry import Retry
from pipelines.store.fetch import FetchStats, RangeFetcher
from pipelines.store.index import StoreIndex
from pipelines.store.record import BadRecord, parse_fragment

_IMAGES_AT_ONCE = 128


def store_texts(index: StoreIndex, images: int | None = None, retry: Retry | None = None) -> Iterator[str]:
    """Instructions and answers of the split, in the index's order.

    Args:
        index: the split.
        images: read only this many images, evenly spaced; ``None``: all.
        retry: how storage errors are met.

    Raises:
        UserError: a shard is missing or out of reach.
    """
    firsts = np.flatnonzero(np.diff(index.images, prepend=-1))
    if images is not None and len(firsts) > images:
        firsts = firsts[np.arange(images) * len(firsts) // images]
    fetcher = RangeFetcher(index.store, retry)
    for begin in range(0, len(firsts), _IMAGES_AT_ONCE):
        entries = index.rows(firsts[begin : begin + _IMAGES_AT_ONCE])
        ranges = [(e["shard"], e["offset"], e["nbytes"]) for e in entries]
        for data in fetcher.fetch(ranges, FetchStats()):
            yield from _texts(data)


def _texts(data: bytes) -> Iterator[str]:
    try:
        samples = parse_fragment(data).record["samples"]
    except BadRecord:  # the stream counts and names it
        return
    for sample in samples:
        for name in ("instruction", "answer"):
            text = sample.get(name) if isinstance(sample, dict) else None
            if isinstance(text, str) and text:
                yield text.encode("utf-8", "replace").decode("utf-8")
