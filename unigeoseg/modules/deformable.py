"""Multi-scale deformable sampling (Zhu et al. 2021): each query reads a few weighted points on every level.

On a CPU it is one weighted sum of table rows per query and head (``embedding_bag`` over the four neighbours
of every point), several times faster than one ``grid_sample`` per level with its intermediate maps; on a GPU
two kernels (:mod:`unigeoseg.modules.deformable_gpu`); elsewhere the form of ``transformers``. On the meta
device there are only shapes, and what the GPU's kernels keep of them. All compute the same sums; always in
float32, for a position in bfloat16 is a quarter of a pixel wide on a map of 64.
"""

import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

Shapes = list[tuple[int, int]]
_TRITON = find_spec("triton") is not None


def deformable_sampling(
    value: Tensor, shapes: Shapes, reference: Tensor, offsets: Tensor, weights: Tensor
) -> Tensor:
    """Weighted bilinear reads; what lies outside a map is zero.

    Args:
        value: ``[I, N, heads, e]``, the positions of all levels, row by row.
        shapes: height and width of the levels; N is their summed area.
        reference: ``[Q, 2]``, (x, y) in [0, 1].
        offsets: ``[I, Q, heads, levels, points, 2]`` in pixels of the level.
        weights: ``[I, Q, heads, levels, points]``.

    Returns:
        ``[I, Q, heads * e]`` in the dtype of ``value``.
    """
    if value.device.type == "cuda" and _TRITON:
        from unigeoseg.modules.deformable_gpu import (
            SampledRows,  # needs Triton, which only GPU builds of torch bring
        )

        read: Tensor = SampledRows.apply(value, tuple(shapes), reference, offsets, weights)
        return read
    if value.device.type == "meta":
        shaped: Tensor = _Shaped.apply(value, offsets, weights)
        return shaped
    scale = torch.tensor([[w, h] for h, w in shapes], dtype=torch.float32, device=value.device)
    scale = scale[None, None, None, :, None, :]
    places = reference.float()[None, :, None, None, None, :]
    arguments = value.float(), offsets.float(), weights.float()
    if value.device.type == "cpu":
        pixels = places * scale + arguments[1] - 0.5
        sampled = _by_rows(arguments[0], shapes, pixels, arguments[2])
    else:
        sampled = multi_scale_deformable_attention(
            arguments[0], shapes, places + arguments[1] / scale, arguments[2]
        )
    return sampled.to(value.dtype)


class _Shaped(torch.autograd.Function):
    """The kernels' memory without their values: for counting it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        """Shapes as in :func:`deformable_sampling`."""
        tensors = [t.contiguous() for t in (value, offsets, weights)]
        ctx.save_for_backward(*tensors)
        images, _, heads, channels = value.shape
        return value.new_empty(images, offsets.shape[1], heads * channels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """Their gradients; that of ``value`` is summed in float32."""
        value, offsets, weights = ctx.saved_tensors
        gradient = gradient.contiguous()
        summed = torch.zeros_like(value, dtype=torch.float32)
        d_offsets, d_weights = torch.empty_like(offsets), torch.empty_like(weights)
        return summed.to(value.dtype), d_offsets, d_weights


def _by_rows(value: Tensor, shapes: Shapes, pixels: Tensor, weights: Tensor) -> Tensor:
    """As :func:`deformable_sampling`, from positions in pixels (pixel centres are whole numbers)."""
    images, _, heads, _ = value.shape
    queries = pixels.shape[1]
    table = _padded_table(value, shapes)
    areas = [(h + 2) * (w + 2) for h, w in shapes]
    starts = torch.tensor([sum(areas[:n]) for n in range(len(areas))])[:, None]
    sides = torch.tensor(shapes)  # [levels, (h, w)]
    with torch.no_grad():
        corner = pixels.floor()
        x, y = (corner[..., axis].long() + 1 for axis in (0, 1))  # in the padded map
        height, width = sides[:, :1], sides[:, 1:]
        inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
        cells = starts + y.clamp(min=0).minimum(height) * (width + 2) + x.clamp(min=0).minimum(width)
        image = torch.arange(images).view(-1, 1, 1, 1, 1) * sum(areas)
        rows = (image + cells) * heads + torch.arange(heads).view(1, 1, -1, 1, 1)
        rows = rows.to(torch.int32)  # what the kernels below read fastest
    share = pixels - corner
    bags = images * queries * heads
    flat = [t.reshape(bags, -1) for t in (rows, share[..., 0], share[..., 1], weights * inside)]
    below = (sides[:, 1] + 2).repeat_interleave(weights.shape[-1]) * heads
    sampled: Tensor = _WeightedRows.apply(table, *flat, below, heads, shapes)
    return sampled.view(images, queries, -1)


def _padded_table(value: Tensor, shapes: Shapes) -> Tensor:
    """Rows ``[I * padded positions * heads, e]``: every level with a rim of zeros."""
    images = len(value)
    flat = value.flatten(2)
    parts = []
    for part, shape in zip(flat.split([h * w for h, w in shapes], dim=1), shapes, strict=True):
        parts.append(torch.nn.functional.pad(part.unflatten(1, shape), (0, 0, 1, 1, 1, 1)).flatten(1, 2))
    return torch.cat(parts, dim=1).view(images, -1, *value.shape[2:]).flatten(0, 2)


class _WeightedRows(torch.autograd.Function):
    """Bilinear reads from a table: ``out[b] = sum_j w[b, j] * (four rows around point j)``."""

    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        rows: Tensor,
        x: Tensor,
        y: Tensor,
        w: Tensor,
        below: Tensor,
        right: int,
        shapes: Shapes,
    ) -> Tensor:
        """``rows, x, y, w [bags, J]``: upper left row, shares, weight; ``below [J]``, ``right``: steps."""
        ctx.save_for_backward(table, rows, x, y, w, below)
        ctx.right, ctx.shapes = right, shapes
        corners = _corner_weights(x, y) * w[:, None]
        return torch.nn.functional.embedding_bag(
            _corner_rows(rows, below, right), table, mode="sum", per_sample_weights=corners.flatten(1)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of table, shares and weights."""
        table, rows, x, y, w, below = ctx.saved_tensors
        gradient = gradient.contiguous()
        corners = _corner_weights(x, y)
        dots = _row_products(gradient, table, _corner_rows(rows, below, ctx.right)).view_as(corners)
        d_w = (dots * corners).sum(1)
        upper_left, upper_right, lower_left, lower_right = dots.unbind(1)
        d_x = w * torch.lerp(upper_right - upper_left, lower_right - lower_left, y)
        d_y = w * torch.lerp(lower_left - upper_left, lower_right - upper_right, x)
        d_table = _spread(gradient, rows, corners * w[:, None], table, ctx.shapes, ctx.right)
        return d_table, None, d_x, d_y, d_w, None, None, None


def _corner_weights(x: Tensor, y: Tensor) -> Tensor:
    """Of the upper left, upper right, lower left and lower right rows, ``[bags, 4, J]``."""
    far_x, far_y = 1 - x, 1 - y
    return torch.cat([far_x * far_y, x * far_y, far_x * y, x * y], dim=1).view(len(x), 4, -1)


def _corner_rows(rows: Tensor, below: Tensor, right: int) -> Tensor:
    """Rows of the four corners, ``[bags, 4 * J]``."""
    lower = rows + below.to(rows.dtype)
    return torch.cat([rows, rows + right, lower, lower + right], dim=1)


def _row_products(gradient: Tensor, table: Tensor, rows: Tensor) -> Tensor:
    """``gradient[b] . table[rows[b, k]]``, ``[bags, k]``."""
    starts = torch.arange(0, rows.numel() + 1, rows.shape[1], dtype=rows.dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        pattern = torch.sparse_csr_tensor(
            starts,
            rows.flatten(),
            torch.zeros(rows.numel()),
            (len(rows), len(table)),
            check_invariants=False,
        )
        return torch.sparse.sampled_addmm(pattern, gradient, table.T, beta=0.0).values().view(rows.shape)


def _spread(
    gradient: Tensor, rows: Tensor, corners: Tensor, table: Tensor, shapes: Shapes, heads: int
) -> Tensor:
    """The transposed read, without atomics: points sorted by their row, one sum per row and corner.

    ``corners [bags, 4, J]`` are the weights.
    """
    order = rows.flatten().argsort(stable=True)
    ends = torch.bincount(rows.flatten(), minlength=len(table)).cumsum(0)
    offsets = torch.cat([ends.new_zeros(1), ends[:-1]])
    readers = order // rows.shape[1]
    areas = [(h + 2) * (w + 2) for h, w in shapes]
    images = len(table) // (sum(areas) * heads)
    spread = torch.zeros_like(table)
    targets = spread.view(images, sum(areas), -1).split(areas, dim=1)
    for corner in range(4):
        weights = corners[:, corner].reshape(-1).index_select(0, order)
        summed = torch.nn.functional.embedding_bag(
            readers, gradient, offsets, mode="sum", per_sample_weights=weights
        )
        down, right = divmod(corner, 2)
        sources = summed.view(images, sum(areas), -1).split(areas, dim=1)
        for target, source, (height, width) in zip(targets, sources, shapes, strict=True):
            whole = (height + 2, width + 2)
            moved = source.unflatten(1, whole)[:, : whole[0] - down, : whole[1] - right]
            target.unflatten(1, whole)[:, down:, right:] += moved
    return spread
