"""One image of a source through the pipeline: tiles, regions, rules, instructions."""

import math
from collections.abc import Iterator
from typing import Any

from pipelines.build.config import BuildConfig, RuleConfig
from pipelines.build.encode import encode_mask, encode_png
from pipelines.build.instruct.candidates import CandidateWriter
from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.interactive import interactive_fields
from pipelines.build.instruct.reasoning import ask
from pipelines.build.instruct.referring import refer
from pipelines.build.regions import Region, split_instances, split_semantic
from pipelines.build.rules import select
from pipelines.build.seeds import generator
from pipelines.build.sources.base import Source, SourceImage, SourceItem
from pipelines.build.stages import StageCounts
from pipelines.build.taxonomy import taxonomy
from pipelines.build.tile import Tile
from pipelines.build.tiling import Window, windows
from pipelines.build.triplets import ready_tile
from unigeoseg.tasks import INTERACTIVE, REASONING, REFERRING


def process_item(
    source: Source, item: SourceItem, config: BuildConfig, counts: StageCounts
) -> Iterator[Tile]:
    """Opens an image and makes its tiles, one at a time from the top to the bottom.

    Raises:
        UnusableImage: the image cannot be used; tiles that came before do not count.
        UserError: the source is wrong.
    """
    image = source.read(item)
    counts.add("read", 1, 1)
    if isinstance(image, SourceImage) and image.triplets is not None:
        counts.add("tile", 1, 1)
        yield ready_tile(source, item, image, counts)
        return
    cuts = windows(image.height, image.width, config.tile)
    whole = len(cuts) == 1
    for window in cuts:
        part = image.cut(window)
        if whole:
            part.encoded, part.extension = image.encoded, image.extension
        yield _tile(source, item, part, window, whole, config, counts)
    counts.add("tile", len(cuts), len(cuts))
    image.count(counts)


def _tile(
    source: Source,
    item: SourceItem,
    part: SourceImage,
    window: Window,
    whole: bool,
    config: BuildConfig,
    counts: StageCounts,
) -> Tile:
    regions, noise = _regions(part, config.rules)
    counts.add("split", len(regions) + noise, len(regions), {"noise": noise})
    key = item.key if whole else f"{item.key}_y{window.y:05d}_x{window.x:05d}"
    samples = _samples(f"{source.name}/{key}", regions, window, config, counts)
    extension, encoded = part.extension, part.encoded
    if not samples:
        encoded = b""
    elif encoded is None:
        extension, encoded = "png", encode_png(part.pixels)
    categories = len({r.category_id for r in regions})
    return Tile(
        key,
        item.scene,
        item.group,
        extension,
        encoded,
        part.height,
        part.width,
        categories,
        samples,
        item.split,
    )


def _regions(part: SourceImage, rules: RuleConfig) -> tuple[list[Region], int]:
    """Regions of a tile, and how many were noise."""
    least = rules.min_component_px
    if part.regions is not None:
        found = sorted(part.regions, key=lambda r: r.category_id)
        large = [r for r in found if r.area >= least]
        return large, len(found) - len(large)
    if part.instances is not None:
        return split_instances(part.labels, part.instances, part.colours, least)
    share = rules.min_component_share * part.labels.size
    return split_semantic(part.labels, max(least, math.ceil(share)))


def _samples(
    name: str, regions: list[Region], window: Window, config: BuildConfig, counts: StageCounts
) -> list[dict[str, Any]]:
    height, width = window.height, window.width
    rng = generator(config.seed, "select", name)
    chosen = select(regions, height, width, config.rules, rng)
    counts.add(
        "area",
        len(regions),
        len(chosen.sized),
        {"too_small": chosen.too_small, "too_large": chosen.too_large},
    )
    counts.add("rules", len(chosen.sized), len(chosen.drawn), dict(chosen.dropped))
    if not chosen.sized:
        return []
    masks = {i: encode_mask(regions[i].full(height, width)) for i in chosen.sized}
    made = _interactive(name, regions, chosen.sized, window, config, counts)
    made += _described(name, regions, chosen.drawn, window, config, counts)
    return [
        {
            "sample_id": f"{name}/{task}/{n}",
            "task": task,
            "category_id": regions[i].category_id,
            "category": taxonomy()[regions[i].category_id].name,
            "mask": masks[i],
            "quality": None,
            **({"mask_from": regions[i].mask_from} if regions[i].mask_from else {}),
            **fields,
        }
        for task, n, i, fields in made
    ]


_Made = list[tuple[str, int, int, dict[str, Any]]]


def _interactive(
    name: str,
    regions: list[Region],
    places: list[int],
    window: Window,
    config: BuildConfig,
    counts: StageCounts,
) -> _Made:
    rng = generator(config.seed, INTERACTIVE, name)
    first = int(rng.integers(2))  # boxes and points alternate: half and half, also within a tile
    made: _Made = []
    for n, i in enumerate(places):
        fields = interactive_fields(
            regions[i], window.height, window.width, (n + first) % 2 == 0, config.instruct, rng
        )
        made.append((INTERACTIVE, n, i, fields | {"answer": ""}))
    counts.add(INTERACTIVE, len(places), len(made))
    return made


def _described(
    name: str,
    regions: list[Region],
    places: list[int],
    window: Window,
    config: BuildConfig,
    counts: StageCounts,
) -> _Made:
    """Referring phrases, then reasoning questions, for the drawn regions."""
    facts = TileFacts(regions, window.height, window.width)
    writer = CandidateWriter(facts)
    plain = {"box": None, "points": None}
    made: _Made = []
    rng = generator(config.seed, REFERRING, name)
    for i in places:
        found = refer(writer, facts, i, rng)
        counts.add(REFERRING, 1, int(found is not None), {"no_unique_phrase": int(found is None)})
        if found is not None:
            fields = {"subtask": "object", "instruction": found[0], "answer": ""}
            made.append((REFERRING, len(made), i, fields | plain))
    rng, first = generator(config.seed, REASONING, name), len(made)
    for i in places:
        question = ask(writer, facts, i, rng)
        if isinstance(question, str):
            counts.add(REASONING, 1, 0, {question: 1})
            continue
        counts.add(REASONING, 1, 1)
        fields = {
            "subtask": question.subtask,
            "instruction": question.instruction,
            "answer": question.answer,
        }
        made.append((REASONING, len(made) - first, i, fields | plain))
    return made
