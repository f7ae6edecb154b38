"""Orthogonalised updates of weight matrices: the mathematics of Muon (Jordan et al. 2024).

Moonlight (Liu et al. 2025) gives the scale that makes such an update as long as one of AdamW, so that one
learning rate serves both.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from unigeoseg.model import UniGeoSeg
from unigeoseg.weights.words import word_parameters

#: Odd quintics a x + b x^3 + c x^5, each the nearest to 1 on what the one before leaves of [0.01, 1] (Amsel
#: et al. 2025, "The Polar Express"): three bring singular values from there to between 0.73 and 1.27, as the
#: five equal rounds of Jordan et al. do, for little more than half the work.
_ROUNDS = (
    (8.0933685, -23.6204303, 17.4461517),
    (3.6365856, -2.7219267, 0.5365463),
    (2.6613000, -1.9771545, 0.4526164),
)
#: What rounding adds must not leave the interval, beyond which they grow fast: it is taken for so much wider.
_MARGIN = 1.01
#: Matrices with a side below this are maps from or to a few numbers (coordinates), left to AdamW.
_LEAST_SIDE = 9


def orthogonal(matrices: Tensor) -> Tensor:
    """Each matrix with its singular values near 1, by a few rounds of a polynomial.

    On a CPU it runs in float32 on the small square X X^T, which takes half the products for wide matrices;
    elsewhere in bfloat16 on the matrix itself, which needs no more range than that.

    Args:
        matrices: ``[n, r, c]``.

    Returns:
        ``[n, r, c]`` in the dtype of ``matrices``; zero stays zero.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (_MARGIN * torch.linalg.matrix_norm(x, keepdim=True)).clamp(min=1e-7)
    x = _by_gram(x) if x.device.type == "cpu" and x.shape[1] < x.shape[2] else _by_rounds(x)
    return (x.mT if tall else x).to(matrices.dtype)


def _rounds() -> Iterator[tuple[float, float, float]]:
    """The polynomials, all but the last for intervals wider by the margin."""
    for number, (a, b, c) in enumerate(_ROUNDS, 1):
        wide = _MARGIN if number < len(_ROUNDS) else 1.0
        yield a / wide, b / wide**3, c / wide**5


def _by_rounds(x: Tensor) -> Tensor:
    if x.device.type != "cpu":
        x = x.bfloat16()
    for a, b, c in _rounds():
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_gram(x: Tensor) -> Tensor:
    """The same product of polynomials of X X^T, gathered before it meets X."""
    gram, factor = x @ x.mT, None
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    for number, (a, b, c) in enumerate(_rounds(), 1):
        step = torch.baddbmm(gram, gram, gram, beta=b, alpha=c) + a * identity
        factor = step if factor is None else step @ factor
        if number < len(_ROUNDS):
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
