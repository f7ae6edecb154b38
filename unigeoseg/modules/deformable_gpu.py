"""Multi-scale deformable sampling as two Triton kernels, for GPUs.

Each program reads the points of a block of queries for one head: the four neighbours of a point stand side
by side in memory for all channels of the head, and nothing but the sum is written. ``grid_sample`` per level,
the plain form, writes every single read to memory and reads it back for the sum.

Values, offsets and weights come in any floating dtype and are used in float32; places are float32 throughout.
The gradient of the values is summed by atomic additions, so it may differ in the last bits between two runs,
as that of ``grid_sample`` on a GPU does.
"""

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

Shapes = tuple[tuple[int, int], ...]
_QUERIES = 32  # of one program


@triton.jit
def _point(levels, level, offsets, weights, reference_x, reference_y, slot, valid):
    """Size and start of a level; upper left neighbour, shares of the distance and weight of one point."""
    height = tl.load(levels + 3 * level)
    width = tl.load(levels + 3 * level + 1)
    start = tl.load(levels + 3 * level + 2)
    x = tl.load(offsets + 2 * slot, mask=valid, other=0.0).to(tl.float32) + reference_x * width - 0.5
    y = tl.load(offsets + 2 * slot + 1, mask=valid, other=0.0).to(tl.float32) + reference_y * height - 0.5
    # Far outside there is nothing to read; without a bound the integers below would overflow.
    x = tl.minimum(tl.maximum(x, -2.0), width + 1.0)
    y = tl.minimum(tl.maximum(y, -2.0), height + 1.0)
    left = tl.floor(x)
    top = tl.floor(y)
    weight = tl.load(weights + slot, mask=valid, other=0.0).to(tl.float32)
    return height, width, start, left.to(tl.int32), top.to(tl.int32), x - left, y - top, weight


@triton.jit
def _cell(x, y, height, width, start, heads, channels, valid):
    """Where the head's channels of a position begin, and whether the position is on the map."""
    inside = valid & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return (start + y * width + x) * (heads * channels), inside


@triton.jit
def _read_kernel(
    value, offsets, weights, reference, levels, out,
    positions, queries, heads, channels,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, QUERIES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    channel = tl.arange(0, CHANNELS)
    valid, used = query < queries, channel < channels
    reference_x = tl.load(reference + 2 * query, mask=valid, other=0.0)
    reference_y = tl.load(reference + 2 * query + 1, mask=valid, other=0.0)
    row = (image * queries + query) * heads + head
    table = value + image * positions * heads * channels + head * channels
    total = tl.zeros([QUERIES, CHANNELS], tl.float32)
    for number in range(LEVELS * POINTS):
        slot = row * (LEVELS * POINTS) + number
        height, width, start, left, top, share_x, share_y, weight = _point(
            levels, number // POINTS, offsets, weights, reference_x, reference_y, slot, valid
        )
        for corner in tl.static_range(4):
            right = corner % 2
            below = corner // 2
            cell, inside = _cell(left + right, top + below, height, width, start, heads, channels, valid)
            near_x = share_x if right else 1 - share_x
            near_y = share_y if below else 1 - share_y
            read = tl.load(
                table + cell[:, None] + channel[None], mask=inside[:, None] & used[None], other=0.0
            )
            total += (weight * near_x * near_y)[:, None] * read.to(tl.float32)
    places = out + row[:, None] * channels + channel[None]
    tl.store(places, total, mask=valid[:, None] & used[None])


@triton.jit
def _spread_kernel(
    gradient, value, offsets, weights, reference, levels, d_value, d_offsets, d_weights,
    positions, queries, heads, channels,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, QUERIES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    channel = tl.arange(0, CHANNELS)
    valid, used = query < queries, channel < channels
    reference_x = tl.load(reference + 2 * query, mask=valid, other=0.0)
    reference_y = tl.load(reference + 2 * query + 1, mask=valid, other=0.0)
    row = (image * queries + query) * heads + head
    first = image * positions * heads * channels + head * channels
    incoming = tl.load(
        gradient + row[:, None] * channels + channel[None], mask=valid[:, None] & used[None], other=0.0
    ).to(tl.float32)
    for number in range(LEVELS * POINTS):
        slot = row * (LEVELS * POINTS) + number
        height, width, start, left, top, share_x, share_y, weight = _point(
            levels, number // POINTS, offsets, weights, reference_x, reference_y, slot, valid
        )
        d_weight = tl.zeros([QUERIES], tl.float32)
        d_x = tl.zeros([QUERIES], tl.float32)
        d_y = tl.zeros([QUERIES], tl.float32)
        for corner in tl.static_range(4):
            right = corner % 2
            below = corner // 2
            cell, inside = _cell(left + right, top + below, height, width, start, heads, channels, valid)
            near_x = share_x if right else 1 - share_x
            near_y = share_y if below else 1 - share_y
            where = first + cell[:, None] + channel[None]
            there = inside[:, None] & used[None]
            read = tl.load(value + where, mask=there, other=0.0).to(tl.float32)
            product = tl.sum(incoming * read, axis=1)
            d_weight += product * near_x * near_y
            d_x += product * near_y * (1.0 if right else -1.0)
            d_y += product * near_x * (1.0 if below else -1.0)
            added = (weight * near_x * near_y)[:, None] * incoming
            tl.atomic_add(d_value + where, added, mask=there, sem="relaxed")
        tl.store(d_weights + slot, d_weight, mask=valid)
        tl.store(d_offsets + 2 * slot, d_x * weight, mask=valid)
        tl.store(d_offsets + 2 * slot + 1, d_y * weight, mask=valid)


class SampledRows(torch.autograd.Function):
    """:func:`unigeoseg.modules.deformable.deformable_sampling` for tensors on a GPU."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, shapes: Shapes, reference: Tensor, offsets: Tensor, weights: Tensor
    ) -> Tensor:
        """Shapes as there; ``[I, Q, heads * e]`` in the dtype of ``value``."""
        tensors = [t.contiguous() for t in (value, offsets, weights)]
        levels = _levels(shapes, value.device)
        places = reference.float().contiguous()
        images, _, heads, channels = value.shape
        queries = offsets.shape[1]
        out = value.new_empty(images, queries, heads * channels)
        grid, numbers, sizes = _launch(value, offsets)
        _read_kernel[grid](*tensors, places, levels, out, *numbers, **sizes)
        ctx.save_for_backward(*tensors, places, levels)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of values, offsets and weights."""
        value, offsets, weights, places, levels = ctx.saved_tensors
        d_value = torch.zeros_like(value, dtype=torch.float32)
        d_offsets, d_weights = torch.empty_like(offsets), torch.empty_like(weights)
        grid, numbers, sizes = _launch(value, offsets)
        _spread_kernel[grid](
            gradient.contiguous(), value, offsets, weights, places, levels, d_value, d_offsets, d_weights,
            *numbers, **sizes,
        )  # fmt: skip
        return d_value.to(value.dtype), None, None, d_offsets, d_weights


def _launch(value: Tensor, offsets: Tensor) -> tuple[tuple[int, int, int], tuple[int, ...], dict[str, int]]:
    images, positions, heads, channels = value.shape
    queries, levels, points = offsets.shape[1], offsets.shape[3], offsets.shape[4]
    grid = (triton.cdiv(queries, _QUERIES), heads, images)
    sizes = {
        "LEVELS": levels,
        "POINTS": points,
        "QUERIES": _QUERIES,
        "CHANNELS": triton.next_power_of_2(channels),
    }
    return grid, (positions, queries, heads, channels), sizes


@lru_cache(maxsize=64)
def _levels(shapes: Shapes, device: torch.device) -> Tensor:
    """Height, width and first position of every level, int32 ``[levels, 3]``; made once, not once a call."""
    rows, start = [], 0
    for height, width in shapes:
        rows.append((height, width, start))
        start += height * width
    return torch.tensor(rows, dtype=torch.int32, device=device)
