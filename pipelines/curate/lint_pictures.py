"""What is wrong with pictures themselves: empty ones, masks where nothing is seen, twins by another name."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 16
#: 99 of 100 values of a nearly black picture are below this.
_BLACK = 16
#: Share of a mask's pixels without content from which on it counts as drawn on nothing.
_EMPTY = 0.99
#: A picture with less spread of grey values has too little in it to be told from others.
_LEAST_SPREAD = 6.0
#: Most difference of two thumbnails of one picture, in grey values: what JPEG and scaling leave.
_ALIKE = 3.0


@dataclass(frozen=True)
class Seen:
    """An image of a store.

    Attributes:
        digest: hash of its bytes.
        split: where it is.
        scene: source and scene.
        sample_id: of its first sample.
        small: grey thumbnail, uint8 ``[256]``; empty where the picture shows too little to be known again.
    """

    digest: bytes
    split: str
    scene: str
    sample_id: str
    small: bytes = b""


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A grey thumbnail of 16 x 16, or nothing for a picture with hardly anything in it."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return small.tobytes() if float(small.std()) >= _LEAST_SPREAD else b""


def picture_faults(pixels: NDArray[np.uint8]) -> list[str]:
    """Why a picture ``[H, W, 3]`` shows nothing."""
    low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
    if (low == high).all():
        return [f"one_colour: every pixel is {tuple(int(v) for v in low)}"]
    if high.max() < _BLACK or np.percentile(pixels, 99) < _BLACK:
        return ["nearly_black: 99 % of the values are below 16 of 255; look at the source's stretch"]
    return []


def mask_faults(mask: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> list[str]:
    """What is wrong with where a mask lies in its picture."""
    area = int(np.count_nonzero(mask))
    if area == mask.size:
        return ["whole_picture: the mask is all of the picture"]
    if area == 1:
        return ["one_pixel: the mask is a single pixel"]
    if area:
        inside = pixels[mask != 0]
        for value, name in ((0, "black"), (255, "white")):
            share = float((inside == value).all(axis=1).mean())
            if share >= _EMPTY:
                return [f"empty_pixels: {share:.0%} of the mask is pure {name}, as where no data is"]
    return []


def twins(images: Iterable[Seen]) -> Iterator[tuple[Seen, Seen, str]]:
    """Pairs of images that show the same picture: the later one, the first one, and how they are told.

    The same bytes are told anywhere; pictures that only look the same, in different scenes alone, since tiles
    of one scene may be alike.
    """
    images = list(images)
    first: dict[bytes, Seen] = {}
    rest: list[Seen] = []
    for seen in images:
        known = first.setdefault(seen.digest, seen)
        if known is not seen:
            yield seen, known, "duplicate_image: the same picture as"
        elif seen.small:
            rest.append(seen)
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    if not rest:
        return
    small = (
        np.frombuffer(b"".join(seen.small for seen in rest), np.uint8).reshape(len(rest), -1).astype(np.int16)
    )
    for place, seen in enumerate(rest):
        other = _first_alike(place, small, buckets)
        if other is not None and rest[other].scene != seen.scene:
            yield seen, rest[other], "similar_image: it looks the same as"


def _first_alike(
    place: int, small: NDArray[np.int16], buckets: dict[tuple[int, int], list[int]]
) -> int | None:
    """The first earlier thumbnail that is alike; its hash of 64 signs is looked up by four parts of 16."""
    picture = small[place].reshape(_SIDE, _SIDE)
    eight = picture.reshape(8, 2, 8, 2).mean(axis=(1, 3))
    signs = (eight > np.median(eight)).ravel()
    keys = [(n, int(np.packbits(signs[16 * n : 16 * n + 16]).view(">u2")[0])) for n in range(4)]
    tried = sorted({other for key in keys for other in buckets[key]})
    for key in keys:
        buckets[key].append(place)
    if not tried:
        return None
    away = np.abs(small[tried] - small[place]).mean(axis=1)
    near = np.flatnonzero(away <= _ALIKE)
    return tried[int(near[0])] if len(near) else None
