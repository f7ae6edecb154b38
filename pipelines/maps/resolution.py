"""Whether a model is shown a raster at the resolution that it knows."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.maps.scene import Scene

#: Beyond this factor things have another size than those that a model was trained on.
_GSD_FACTOR = 2.0
#: A model whose training pictures were shrunk by more than this knows things smaller than rasters show them.
_SHRINK_FACTOR = 1.5


def resolution_warnings(seen_at: Mapping[str, Any], scenes: Sequence[Scene]) -> list[str]:
    """What a person should know about the resolution before a map is made.

    Args:
        seen_at: of the model's export (:func:`pipelines.plan.seen_at.seen_at`); empty: nothing is known.
        scenes: rasters that are looked at in windows.
    """
    told: list[str] = []
    known, shrink = seen_at.get("gsd"), seen_at.get("shrink")
    for scene in scenes:
        metres = None if scene.gsd is None else sum(scene.gsd) / 2
        if known and metres is not None:
            told += _by_metres(scene.path, metres, float(known[0]), float(known[1]))
        elif shrink and not 1 / _SHRINK_FACTOR <= shrink[1] <= _SHRINK_FACTOR:
            told += [_by_shrink(scene.path, metres, float(shrink[1]))]
    return told


def _by_metres(path: str, metres: float, least: float, most: float) -> list[str]:
    if least / _GSD_FACTOR <= metres <= most * _GSD_FACTOR:
        return []
    middle = (least * most) ** 0.5
    larger = metres < least
    size, way = (
        ("larger", "makes it coarser") if larger else ("smaller", "makes it finer, by interpolation alone")
    )
    return [
        f"{path} is looked at with {metres:.3g} m a pixel, and the model saw its training pictures with "
        f"{least:.3g} to {most:.3g}: things are {size} than it knows them; --gsd {middle:.3g} {way}"
    ]


def _by_shrink(path: str, metres: float | None, shrink: float) -> str:
    how = (
        f"gdal_translate -outsize {100 / shrink:.3g}% 0 -r average {path} smaller.tif, and that mapped,"
        if metres is None
        else f"--gsd {metres * shrink:.3g}"
    )
    return (
        f"the model saw its training pictures with 1/{shrink:.3g} of their pixels a side, and {path} is "
        f"looked at as it is: where it is as fine as they were, {how} shows things in the size that the "
        "model knows"
    )
