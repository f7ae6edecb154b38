"""Tiles per second of each construction step, in one process, and what the rules cost beside bare OpenCV."""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipelines.build import process
from pipelines.build.encode import encode_png, encode_region
from pipelines.build.rules import select
from pipelines.build.seeds import generator
from pipelines.build.sources.base import SourceImage
from pipelines.build.sources.registry import open_source
from pipelines.config.building import BuildConfig
from pipelines.labels.regions import Region
from pipelines.labels.stages import StageCounts
from pipelines.labels.tiling import Window, windows
from pipelines.models.machine import machine
from pipelines.store.writer import ShardWriter
from unigeoseg.errors import UserError

_CALLS = ("connectedComponentsWithStats", "distanceTransform")


def bench_build(
    source: str,
    root: str | Path | None,
    config: BuildConfig,
    tiles: int,
    repeats: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Times the steps on the first tiles of a source.

    Args:
        source: name or table of a source.
        root: its folder.
        config: of the build.
        tiles: how many tiles.
        repeats: each step is timed so often; the least time counts.
        say: receives progress.

    Returns:
        ``{"rows": [{"name", "seconds", "tiles_per_second"}], "ratios", "machine"}``. The first ratio
        compares components and rules with the very OpenCV calls that they make, on the same arrays: the
        semantic masks of these tiles, which sources of instances get from theirs.

    Raises:
        UserError: wrong source, or no labelled tile.
    """
    cv2.setNumThreads(1)
    seconds: dict[str, float] = defaultdict(float)
    parts = _read(source, root, config, tiles, seconds, say)
    regions = [process.regions_of(part, config.rules)[0] for _, part in parts]

    def rules() -> None:
        for number, ((window, _), found) in enumerate(zip(parts, regions, strict=True)):
            rng = generator(config.seed, "bench", number)
            select(found, window.height, window.width, config.rules, rng)

    def components() -> None:
        for _, part in parts:
            process.regions_of(part, config.rules)

    semantic = [
        (window, _semantic(part, found)) for (window, part), found in zip(parts, regions, strict=True)
    ]

    def both() -> None:
        for number, (window, part) in enumerate(semantic):
            found, _ = process.regions_of(part, config.rules)
            rng = generator(config.seed, "bench", number)
            select(found, window.height, window.width, config.rules, rng)

    say("components and rules")
    seconds["components"] = _least(components, repeats)
    seconds["rules"] = _least(rules, repeats)
    with _recorded() as calls:
        both()
    together, bare = [], []
    for _ in range(repeats):  # side by side, so that a busy machine slows both
        together.append(_least(both, 1))
        bare.append(_least(lambda: _replay(calls), 1))
    say("text and masks")
    made: list[list[dict[str, Any]]] = []

    def samples() -> None:
        made.clear()
        for number, ((_, part), found) in enumerate(zip(parts, regions, strict=True)):
            finish = process.begin_samples(f"bench/{number}", found, part.pixels, config, StageCounts())
            made.append(finish())

    seconds["rules, masks, text"] = _least(samples, repeats)
    seconds["masks (RLE)"] = _least(lambda: _masks(parts, regions), repeats)
    say("encoding and writing")
    encoded = [encode_png(part.pixels) for _, part in parts]
    seconds["encode (PNG)"] = _least(lambda: [encode_png(part.pixels) for _, part in parts], repeats)
    seconds["write"] = _least(lambda: _write(parts, made, encoded), repeats)
    rows: list[dict[str, Any]] = [
        {"name": name, "seconds": value, "tiles_per_second": len(parts) / value}
        for name, value in seconds.items()
    ]
    slowest = max(rows, key=lambda row: float(row["seconds"]))
    return {
        "rows": rows,
        "ratios": {
            "components and rules, speed beside their bare OpenCV calls": min(bare) / min(together),
            "slowest step, share of all": float(slowest["seconds"]) / sum(seconds.values()),
        },
        "slowest": slowest["name"],
        "tiles": len(parts),
        "machine": machine(),
    }


def _read(
    source: str,
    root: str | Path | None,
    config: BuildConfig,
    tiles: int,
    seconds: dict[str, float],
    say: Callable[[str], None],
) -> list[tuple[Window, SourceImage]]:
    say(f"reading {tiles} tiles of {source}")
    adapter, parts = open_source(source, root, config), []
    for item in adapter.items():
        start = time.perf_counter()
        image = adapter.read(item)
        for window in windows(image.height, image.width, config.tile):
            parts.append((window, image.cut(window)))
            if len(parts) == tiles:
                break
        seconds["read and cut"] += time.perf_counter() - start
        if len(parts) == tiles:
            break
    if not any(part.labels.any() or part.regions for _, part in parts):
        raise UserError(f"source {source} has no labelled tile among the first {len(parts)}")
    return parts


def _semantic(part: SourceImage, regions: list[Region]) -> SourceImage:
    """A tile as a source of semantic masks would give it."""
    if part.instances is None and part.regions is None:
        return part
    labels = np.zeros(part.pixels.shape[:2], np.int32)
    for region in regions:
        labels[region.window][region.crop] = region.category_id
    return SourceImage(part.pixels, labels)


def _least(work: Callable[[], object], repeats: int) -> float:
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


@contextmanager
def _recorded() -> Iterator[list[tuple[Any, tuple[Any, ...], dict[str, Any]]]]:
    """The OpenCV calls that are made inside the block, with their arguments."""
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    plain = {name: getattr(cv2, name) for name in _CALLS}

    def wrap(function: Any) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            calls.append((function, arguments, options))
            return function(*arguments, **options)

        return called

    for name, function in plain.items():
        setattr(cv2, name, wrap(function))
    try:
        yield calls
    finally:
        for name, function in plain.items():
            setattr(cv2, name, function)


def _replay(calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> None:
    for function, arguments, options in calls:
        function(*arguments, **options)


def _masks(parts: list[tuple[Window, SourceImage]], regions: list[list[Region]]) -> None:
    for (window, _), found in zip(parts, regions, strict=True):
        for region in found:
            encode_region(region, window.height, window.width)


def _write(
    parts: list[tuple[Window, SourceImage]], made: list[list[dict[str, Any]]], encoded: list[bytes]
) -> None:
    with tempfile.TemporaryDirectory(prefix="unigeoseg-bench-") as folder:
        writer = ShardWriter(folder, "shards/train-00000.tar", "train")
        for number, ((window, _), samples, image) in enumerate(zip(parts, made, encoded, strict=True)):
            writer.add(
                {
                    "key": f"tile_{number}",
                    "image": {"file": f"tile_{number}.png", "height": window.height, "width": window.width},
                    "source": "bench",
                    "scene": "",
                    "split": "train",
                    "licence": "",
                    "samples": samples,
                },
                image,
            )
        writer.close()
