"""Orthogonalised updates of weight matrices: the mathematics of Muon (Jordan et al. 2024).

Moonlight (Liu et al. 2025) gives the scale that makes such an update as long as one of AdamW, so that one
learning rate serves both.
"""

import torch
from torch import Tensor, nn

from unigeoseg.model import UniGeoSeg
from unigeoseg.weights.words import word_parameters

#: Of the quintic iteration; they bring every singular value between about 0.7 and 1.2 in five rounds.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5
#: Matrices with a side below this are maps from or to a few numbers (coordinates), left to AdamW.
_LEAST_SIDE = 9


def orthogonal(matrices: Tensor) -> Tensor:
    """Each matrix with its singular values near 1, by Newton-Schulz iteration.

    On a CPU it runs in float32 on the small square X X^T, which takes half the products for wide matrices;
    elsewhere in bfloat16 on the matrix itself, which needs no more range than that.

    Args:
        matrices: ``[n, r, c]``.

    Returns:
        ``[n, r, c]`` in the dtype of ``matrices``; zero stays zero.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    x = _by_gram(x) if x.device.type == "cpu" and x.shape[1] < x.shape[2] else _by_rounds(x)
    return (x.mT if tall else x).to(matrices.dtype)


def _by_rounds(x: Tensor) -> Tensor:
    if x.device.type != "cpu":
        x = x.bfloat16()
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x


def _by_gram(x: Tensor) -> Tensor:
    """The same product of polynomials of X X^T, gathered before it meets X."""
    gram, factor = x @ x.mT, None
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    for number in range(_ROUNDS):
        step = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C) + _A * identity
        factor = step if factor is None else step @ factor
        if number < _ROUNDS - 1:
            gram = step @ gram @ step
    assert factor is not None
    return factor @ x


def step_scale(rows: int, columns: int) -> float:
    """Factor on an orthogonal update that gives its elements AdamW's root mean square, about 0.2."""
    return float(0.2 * max(rows, columns) ** 0.5)


def matrix_names(model: nn.Module) -> set[str]:
    """Parameters that are weights of hidden layers: what Muon is for.

    Linear and convolution weights with both sides above a few numbers, without the layers that have a row for
    each token and without the patch embedding, which reads pixels.
    """
    apart = set(word_parameters(model)) if isinstance(model, UniGeoSeg) else set()
    found = set()
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not path.endswith("patch_embed.proj"):
            name = f"{path}.weight"
            if name not in apart and min(module.weight.flatten(1).shape) >= _LEAST_SIDE:
                found.add(name)
    return found
