"""Where a stream's time goes: each part of the way from store to batch, alone, in one thread."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.config import Config
from pipelines.plan.plan import Plan
from pipelines.store.fetch import FetchStats, RangeFetcher
from pipelines.store.index import StoreIndex
from pipelines.store.reader import ReadStats
from pipelines.store.record import decode_image, decode_mask, decode_sample, parse_fragment
from pipelines.stream.carry import pack, unpack
from pipelines.stream.collator import make_collator
from pipelines.stream.layout import Micro
from pipelines.stream.stream import Arrival
from unigeoseg.samples.letterbox import letterbox_image, letterbox_mask
from unigeoseg.samples.sample import ImageGroup
from unigeoseg.samples.tokens import load_tokenizer


def break_down(config: Config, store: str, tokenizer: str, images: int = 256) -> dict[str, float]:
    """Milliseconds per image of each part, on the first positions of the plan.

    Args:
        config: of :func:`pipelines.bench.images.bench_config`.
        store: folder or ``s3://`` prefix.
        tokenizer: its folder.
        images: how many; at most the plan's.
    """
    index = StoreIndex.open(store, config.data.split)
    plan = Plan.from_config(index, config)
    count = min(images // plan.batch_size or 1, plan.steps)
    clock = _Clock()
    collate = make_collator(config, load_tokenizer(tokenizer, config.model.mode))
    fetcher, size = RangeFetcher(index.store), config.model.image_size
    plan.batch(0)  # what is loaded once is no image's cost
    for step in range(count):
        with clock("plan"):
            part = plan.batch(step)
        with clock("rows of the index"):
            entries = index.rows(part.rows)
        with clock("fetch"):
            answers = fetcher.fetch([(e["shard"], e["offset"], e["nbytes"]) for e in entries], FetchStats())
        groups, prompts = [], []
        for entry, data in zip(entries, answers, strict=True):
            high, wide, n = entry["height"], entry["width"], entry["n"]
            with clock("tar and JSON"):
                fragment = parse_fragment(data)
            with clock("image"):
                image = decode_image(fragment.image, high, wide)
            with clock("RLE"):
                decode_mask(fragment.record["samples"][n]["mask"], high, wide)
            with clock("checks"):
                sample = decode_sample(fragment.record, n, high, wide)
            with clock("tokens"):
                prompts.append(collate.check(sample, image))
            with clock("letterbox"):
                letterbox_image(image, size)
                letterbox_mask(sample.mask, size)  # type: ignore[arg-type]
            groups.append(ImageGroup(image, (sample,)))
        with clock("tensors"):
            batch = collate(groups, prompts=prompts)
        micro = Micro(part.step, 0, part.position, len(part))
        with clock("carrying: pack"):
            table = pack([Arrival(micro, batch, [], ReadStats())])
        with clock("carrying: unpack"):
            unpack(table)
    found = clock.per(count * plan.batch_size)
    # These two were timed with what they contain.
    for whole, part_of in (("checks", "RLE"), ("tensors", "letterbox")):
        found[whole] = max(0.0, found[whole] - found[part_of])
    return found


class _Clock:
    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started

    def per(self, images: int) -> dict[str, float]:
        return {name: 1e3 * value / images for name, value in self._seconds.items()}
