"""One image of a source through the pipeline: tiles, regions, rules, instructions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from pipelines.build.config import BuildConfig
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
from pipelines.build.tiling import Window, windows
from unigeoseg.tasks import INTERACTIVE, REASONING, REFERRING


@dataclass
class Tile:
    """A tile with its samples, before the steps that need the whole source.

    Attributes:
        key: unique in the store.
        scene: what it shows.
        group: what the split keeps together.
        extension: "png" or "jpg".
        image: encoded bytes.
        height: pixels.
        width: pixels.
        categories: how many categories it shows.
        samples: as in the store's JSON.
    """

    key: str
    scene: str
    group: str
    extension: str
    image: bytes
    height: int
    width: int
    categories: int
    samples: list[dict[str, Any]]


def process_item(
    source: Source, item: SourceItem, config: BuildConfig, counts: StageCounts, store: str = ""
) -> list[Tile]:
    """Reads an image and makes its tiles.

    Args:
        source: adapter.
        item: the image.
        config: rules and writers.
        counts: of all stages.
        store: where the answers of an endpoint are kept, beside it.

    Raises:
        UnusableImage: the image cannot be used.
        UserError: the source is wrong.
    """
    image = source.read(item)
    height, width = image.pixels.shape[:2]
    counts.add("read", 1, 1)
    labelled = int(np.count_nonzero(image.labels))
    counts.add("standardise", height * width, labelled, image.ignored)
    cuts = windows(height, width, config.tile)
    counts.add("tile", len(cuts), len(cuts))
    return [_tile(source, item, image, window, len(cuts) == 1, config, counts, store) for window in cuts]


def _tile(
    source: Source,
    item: SourceItem,
    image: SourceImage,
    window: Window,
    whole: bool,
    config: BuildConfig,
    counts: StageCounts,
    store: str,
) -> Tile:
    labels = np.ascontiguousarray(image.labels[window.slices])
    least = config.rules.min_component_px
    if image.instances is None:
        share = config.rules.min_component_share * labels.size
        regions, noise = split_semantic(labels, max(least, math.ceil(share)))
    else:
        regions, noise = split_instances(labels, image.instances, image.colours, least)
    counts.add("split", len(regions) + noise, len(regions), {"noise": noise})
    key = item.key if whole else f"{item.key}_y{window.y:05d}_x{window.x:05d}"
    describe = _describer(config, image.pixels[window.slices], store)
    samples = _samples(f"{source.name}/{key}", regions, window, config, counts, describe)
    extension, encoded = image.extension, image.encoded
    if not samples:
        encoded = b""
    elif encoded is None or not whole:
        extension, encoded = "png", encode_png(image.pixels[window.slices])
    categories = len({r.category_id for r in regions})
    return Tile(
        key, item.scene, item.group, extension, encoded, window.height, window.width, categories, samples
    )


def _samples(
    name: str,
    regions: list[Region],
    window: Window,
    config: BuildConfig,
    counts: StageCounts,
    describe: "_Describer",
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
    made += describe(name, regions, chosen.drawn, window, config, counts)
    return [
        {
            "sample_id": f"{name}/{task}/{n}",
            "task": task,
            "category_id": regions[i].category_id,
            "category": taxonomy()[regions[i].category_id].name,
            "mask": masks[i],
            "quality": None,
            **fields,
        }
        for task, n, i, fields in made
    ]


_Made = list[tuple[str, int, int, dict[str, Any]]]
_Describer = Callable[[str, list[Region], list[int], Window, BuildConfig, StageCounts], _Made]


def _describer(config: BuildConfig, pixels: NDArray[np.uint8], store: str) -> _Describer:
    """What writes referring and reasoning samples: the endpoint if one is set, else the embedded writer."""
    if config.endpoint.model is None:
        return _described
    from pipelines.build.endpoint.stage import (  # the client takes a second to load
        EndpointWriter,
        endpoint_of,
    )

    endpoint = endpoint_of(config, store)

    def describe(
        name: str,
        regions: list[Region],
        places: list[int],
        window: Window,
        config: BuildConfig,
        counts: StageCounts,
    ) -> _Made:
        facts = TileFacts(regions, window.height, window.width)
        return EndpointWriter(endpoint, config, name, pixels, facts).write(places, counts)

    return describe


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


def encode_mask(mask: NDArray[np.uint8]) -> dict[str, Any]:
    """A mask as COCO compressed RLE with ASCII counts."""
    rle = coco.encode(np.asfortranarray(mask))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A lossless PNG of RGB pixels."""
    ok, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not ok:
        raise RuntimeError("the PNG encoder failed")
    return bytes(encoded.tobytes())
