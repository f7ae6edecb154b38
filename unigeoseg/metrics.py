"""Segmentation metrics with the released evaluator's conventions, on exact integer counts.

Per sample, foreground only: IoU = intersection / (union + 1e-5), and 1.0 where the union is empty. gIoU is
the mean of the samples' IoU, cIoU is sum of intersections / (sum of unions + 1e-10), Pr@t is the share of
samples with IoU strictly above t. Masks are compared on the whole letterboxed square, padding included:
foreground that is predicted in the padding counts as wrong.

Everything that is added up is an integer, so any split of the samples over workers gives the same bits.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # who adds up counts need not load torch
    from torch import Tensor

#: Added to a sample's union, and to the sum of unions (released evaluator).
SAMPLE_EPSILON, TOTAL_EPSILON = 1e-5, 1e-10
#: Thresholds of Pr@ for masks, and for boxes (visual grounding).
MASK_THRESHOLDS: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9)
BOX_THRESHOLDS: tuple[float, ...] = (0.3, 0.5, 0.7)

#: An IoU is a float64 of at least 2^-60 or zero, hence a multiple of 2^-128: its sums are exact integers.
_SCALE_BITS = 128
#: Numbers in one chunk of bootstrap weights.
_CHUNK = 1 << 21


def logit(probability: float) -> float:
    """Where the sigmoid takes a value in (0, 1); exactly 0 for a half."""
    return math.log(probability) - math.log1p(-probability)


def iou(intersection: int, union: int) -> float:
    """IoU of one sample from its pixel counts, float64."""
    return 1.0 if union == 0 else intersection / (union + SAMPLE_EPSILON)


def mask_counts(prediction: "Tensor", truth: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Pixel counts of intersection and union, exact.

    Args:
        prediction: bool or 0/1 ``[B, H, W]``.
        truth: the same shape, on the same device.

    Returns:
        Two int64 ``[B]``.
    """
    p, t = prediction.bool(), truth.bool()
    return (p & t).flatten(1).sum(1), (p | t).flatten(1).sum(1)


def largest_component_box(mask: NDArray[Any]) -> tuple[int, int, int, int] | None:
    """Tight box of the largest 8-connected component of ``mask [H, W]``: x0, y0, x1, y1 in pixels, ends out.

    The first in raster order wins among components of the same area; ``None`` for an empty mask.
    """
    binary = np.ascontiguousarray(mask != 0, dtype=np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    if count < 2:
        return None
    x, y, width, height, _ = (int(v) for v in stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())])
    return x, y, x + width, y + height


def box_counts(prediction: NDArray[Any], truth: NDArray[Any]) -> tuple[int, int]:
    """Intersection and union in pixels of two masks' boxes (box mode); a mask without a box has area 0."""
    boxes = [largest_component_box(m) for m in (prediction, truth)]
    areas = [(b[2] - b[0]) * (b[3] - b[1]) if b else 0 for b in boxes]
    a, b = boxes
    if a is None or b is None:
        return 0, sum(areas)
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared, sum(areas) - shared


@dataclass
class MetricSums:
    """Exact running sums of one group of samples; sums of parts equal the sum of the whole.

    Attributes:
        thresholds: of Pr@.
        n: number of samples.
        intersection: sum of intersections, pixels.
        union: sum of unions, pixels.
        scaled_iou: sum of the samples' float64 IoU, times 2^128 (a whole number).
        above: samples with an IoU above each threshold.
    """

    thresholds: tuple[float, ...] = MASK_THRESHOLDS
    n: int = 0
    intersection: int = 0
    union: int = 0
    scaled_iou: int = 0
    above: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.above = self.above or [0] * len(self.thresholds)

    def add(self, intersection: int, union: int) -> None:
        """Takes one sample in.

        Raises:
            ValueError: counts that no pair of masks can have.
        """
        if not 0 <= intersection <= union:
            raise ValueError(f"impossible counts: intersection {intersection}, union {union}")
        value = iou(intersection, union)
        self.n += 1
        self.intersection += intersection
        self.union += union
        self.scaled_iou += int(value * 2.0**_SCALE_BITS)
        for i, threshold in enumerate(self.thresholds):
            self.above[i] += value > threshold

    def add_all(self, intersections: Iterable[int], unions: Iterable[int]) -> "MetricSums":
        """Takes samples in one after another; returns itself."""
        for i, u in zip(intersections, unions, strict=True):
            self.add(int(i), int(u))
        return self

    def merge(self, other: "MetricSums") -> None:
        """Takes another's samples in.

        Raises:
            ValueError: the two count other thresholds.
        """
        if self.thresholds != other.thresholds:
            raise ValueError(f"thresholds differ: {self.thresholds} and {other.thresholds}")
        self.n += other.n
        self.intersection += other.intersection
        self.union += other.union
        self.scaled_iou += other.scaled_iou
        self.above = [a + b for a, b in zip(self.above, other.above, strict=True)]

    @property
    def giou(self) -> float:
        """Mean IoU of the samples, rounded once; NaN without samples."""
        return float(Fraction(self.scaled_iou, self.n << _SCALE_BITS)) if self.n else float("nan")

    @property
    def ciou(self) -> float:
        """Sum of intersections over sum of unions."""
        return self.intersection / (self.union + TOTAL_EPSILON)

    def result(self) -> dict[str, float | int]:
        """``{"n", "gIoU", "cIoU", "Pr@0.5", ...}``, shares in [0, 1]."""
        values: dict[str, float | int] = {"n": self.n, "gIoU": self.giou, "cIoU": self.ciou}
        for threshold, count in zip(self.thresholds, self.above, strict=True):
            values[f"Pr@{threshold}"] = count / self.n if self.n else float("nan")
        return values


def bootstrap_ci95(
    intersections: Sequence[int] | NDArray[np.int64],
    unions: Sequence[int] | NDArray[np.int64],
    groups: Sequence[int] | NDArray[np.int64],
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, list[float]]:
    """95 % percentile intervals of gIoU and cIoU, resampling groups of samples that are not independent.

    One group alone says nothing of how others would come out: its interval is [0, 1].

    Args:
        intersections: pixels, one number a sample.
        unions: pixels.
        groups: which scene a sample shows (its tiles overlap and share light and season), any integers.
        seed: of the resampling.
        resamples: number of bootstrap draws.

    Returns:
        ``{"gIoU": [low, high], "cIoU": [low, high]}``, rounded to six decimals; empty without samples.
    """
    inter, union = np.asarray(intersections, dtype=np.int64), np.asarray(unions, dtype=np.int64)
    if not len(inter):
        return {}
    values = np.where(union == 0, 1.0, inter / (union + SAMPLE_EPSILON))
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    count = int(group.max()) + 1
    if count == 1:
        return {"gIoU": [0.0, 1.0], "cIoU": [0.0, 1.0]}
    per_group = np.stack([np.bincount(group, w, count) for w in (np.ones(len(inter)), values, inter, union)])
    draws = np.empty((resamples, 2))
    done = 0
    for weights in resampling_weights(count, seed, resamples):
        n, total, i, u = per_group @ weights.T
        draws[done : done + len(weights)] = np.stack([total / n, i / (u + TOTAL_EPSILON)], axis=1)
        done += len(weights)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return {
        name: [round(float(low[k]), 6), round(float(high[k]), 6)] for k, name in enumerate(("gIoU", "cIoU"))
    }


def resampling_weights(count: int, seed: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """How often each of ``count`` items is drawn in bootstrap resamples: int64 ``[R, count]``, in chunks.

    A chunk holds as many resamples as fit a few tens of megabytes; together they are ``resamples``.
    """
    rng = np.random.default_rng(seed)
    most = max(1, _CHUNK // count)
    for first in range(0, resamples, most):
        rows = min(most, resamples - first)
        places = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count)
