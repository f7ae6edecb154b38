"""One image of a source through the pipeline: tiles, regions, rules, instructions."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.build.describe import EMBEDDED, Describer, Drawn, Made
from pipelines.build.encode import encode_png, encode_region
from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.interactive import interactive_fields
from pipelines.build.kinds import Kinds, wanted, with_kinds
from pipelines.build.labelled import Labelled
from pipelines.build.paste import Cutouts, pasted
from pipelines.build.rules import select
from pipelines.build.seeds import generator
from pipelines.build.sources.base import OpenImage, Source, SourceImage, SourceItem
from pipelines.build.tile import Tile
from pipelines.build.triplets import ready_tile
from pipelines.config.building import BuildConfig, RuleConfig
from pipelines.labels.regions import Region, split_instances, split_semantic
from pipelines.labels.stages import StageCounts
from pipelines.labels.taxonomy import taxonomy
from pipelines.labels.tiling import Window, windows
from unigeoseg.errors import UserError
from unigeoseg.tasks import INTERACTIVE


@dataclass(frozen=True)
class Draft:
    """A tile whose text may still be on its way.

    Attributes:
        categories: how many categories it shows.
        finish: waits for the text, counts what became of it, and gives the tile.
        present: the categories that are labelled in it, where absent instructions are written.
    """

    categories: int
    finish: Callable[[], Tile]
    present: frozenset[int] = frozenset()


def process_item(
    source: Source,
    item: SourceItem,
    config: BuildConfig,
    counts: StageCounts,
    describe: Describer = EMBEDDED,
    most: int | None = None,
    cutouts: Cutouts | None = None,
) -> Iterator[Draft]:
    """Opens an image and drafts its tiles, one at a time from the top to the bottom.

    Args:
        source: adapter.
        item: the image.
        config: rules.
        counts: of all stages.
        describe: who writes.
        most: only so many tiles, evenly spaced; stage "tile" then says how many there are.
        cutouts: are offered the objects of each tile.

    Raises:
        UnusableImage: the image cannot be used; tiles that came before do not count.
        UserError: the source is wrong, or has ready samples where objects are to be pasted.
    """
    image = source.read(item)
    counts.add("read", 1, 1, noted={f"also_in_{split}": 1 for split in item.detail.get("also", ())})
    if isinstance(image, SourceImage) and image.triplets is not None:
        if config.paste.copies:
            raise UserError(
                f"paste.copies: {source.name} has ready instructions, which would not fit pasted pictures; "
                "use paste.copies=0"
            )
        counts.add("tile", 1, 1)
        ready = ready_tile(source, item, image, counts)
        yield Draft(ready.categories, lambda: ready)
        return
    cuts = _cuts(image, config)
    whole = len(cuts) == 1
    chosen = cuts if most is None else cuts[:: -(-len(cuts) // most)]
    for window in chosen:
        part = image.cut(window)
        if whole:
            part.encoded, part.extension = image.encoded, image.extension
        key = f"{item.key}{_place(window, whole)}"
        yield _draft(source, item, part, key, config, counts, describe, cutouts)
    counts.add("tile", len(cuts), len(chosen))
    if most is None:
        image.count(counts)


def pasted_item(
    source: Source,
    item: SourceItem,
    config: BuildConfig,
    counts: StageCounts,
    describe: Describer,
    cutouts: Cutouts,
) -> Iterator[Draft]:
    """Opens an image again and drafts its tiles with objects of others pasted in, ``paste.copies`` of each.

    Args:
        source: adapter.
        item: the image, which is for training.
        config: rules.
        counts: of all stages.
        describe: who writes.
        cutouts: the objects.

    Raises:
        UnusableImage: the image cannot be used.
        UserError: the source is wrong.
    """
    image = source.read(item)
    cuts = _cuts(image, config)
    made = 0
    for window in cuts:
        part = image.cut(window)
        for number in range(config.paste.copies):
            key = f"{item.key}{_place(window, len(cuts) == 1)}_pasted{number}"
            rng = generator(config.seed, "paste", source.name, key)
            changed = pasted(part, cutouts, config.paste, rng)
            if changed is not None:
                made += 1
                yield _draft(source, item, changed, key, config, counts, describe)
    asked = len(cuts) * config.paste.copies
    counts.add("tile", asked, made, {"no_object_to_paste": asked - made}, {"pasted": made})


def categories_of(source: Source, item: SourceItem, config: BuildConfig) -> list[int]:
    """How many categories each tile of an image shows, without a word written.

    Raises:
        UnusableImage: the image cannot be used.
        UserError: the source is wrong.
    """
    image = source.read(item)
    if isinstance(image, SourceImage) and image.triplets is not None:
        return [0]
    cuts = _cuts(image, config)
    return [len({r.category_id for r in regions_of(image.cut(w), config.rules)[0]}) for w in cuts]


def _cuts(image: SourceImage | OpenImage, config: BuildConfig) -> list[Window]:
    return windows(image.height, image.width, config.tile, getattr(image, "in_blocks", False))


def _place(window: Window, whole: bool) -> str:
    """What a tile's key says of its place; nothing where it is the whole image."""
    return "" if whole else f"_y{window.y:05d}_x{window.x:05d}"


def _draft(
    source: Source,
    item: SourceItem,
    part: SourceImage,
    key: str,
    config: BuildConfig,
    counts: StageCounts,
    describe: Describer,
    cutouts: Cutouts | None = None,
) -> Draft:
    regions, noise = regions_of(part, config.rules)
    counts.add("split", len(regions) + noise, len(regions), {"noise": noise})
    if cutouts is not None:
        cutouts.offer(part, regions)
    name = f"{source.name}/{key}"
    plain = begin_samples(name, regions, part.pixels, config, counts, describe)
    kinds = None
    if wanted(config):
        kinds = Kinds(name, Labelled(part), TileFacts(regions, part.height, part.width), config)
    samples = with_kinds(kinds, plain, counts)
    categories = len({r.category_id for r in regions})

    def finish() -> Tile:
        made = samples()
        extension, encoded = part.extension, part.encoded
        if not made:
            encoded = b""
        elif encoded is None:
            extension, encoded = "png", encode_png(part.pixels)
        return Tile(
            key,
            item.scene,
            item.group,
            extension,
            encoded,
            part.height,
            part.width,
            categories,
            made,
            item.split,
        )

    return Draft(categories, finish, kinds.present if kinds else frozenset())


def regions_of(part: SourceImage, rules: RuleConfig) -> tuple[list[Region], int]:
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


def begin_samples(
    name: str,
    regions: list[Region],
    pixels: NDArray[np.uint8],
    config: BuildConfig,
    counts: StageCounts,
    describe: Describer = EMBEDDED,
) -> Callable[[], list[dict[str, Any]]]:
    """Begins with the samples of a tile's regions; the call gives them as they stand in the store's JSON.

    Args:
        name: of the tile.
        regions: all of them.
        pixels: uint8 RGB of the tile ``[H, W, 3]``.
        config: rules.
        counts: of all stages.
        describe: who writes.
    """
    height, width = pixels.shape[:2]
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
        return list
    boxes = _interactive(name, regions, chosen.sized, (height, width), config, counts)
    text = describe.begin(Drawn(name, config.seed, pixels, TileFacts(regions, height, width), chosen.drawn))

    def finish() -> list[dict[str, Any]]:
        masks = {i: encode_region(regions[i], height, width) for i in chosen.sized}
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
            for task, n, i, fields in [*boxes, *text(counts)]
        ]

    return finish


def _interactive(
    name: str,
    regions: list[Region],
    places: list[int],
    size: tuple[int, int],
    config: BuildConfig,
    counts: StageCounts,
) -> Made:
    rng = generator(config.seed, INTERACTIVE, name)
    first = int(rng.integers(2))  # boxes and points alternate: half and half, also within a tile
    made: Made = []
    for n, i in enumerate(places):
        fields = interactive_fields(regions[i], *size, (n + first) % 2 == 0, config.instruct, rng)
        made.append((INTERACTIVE, n, i, fields | {"answer": ""}))
    counts.add(INTERACTIVE, len(places), len(made))
    return made
