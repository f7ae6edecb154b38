"""Task-adaptive text enhancement, TATE (UniGeoSeg, arXiv 2511.23332, equations 1-5)."""

import math

import torch
from torch import Tensor, nn

from unigeoseg.config import TATEConfig
from unigeoseg.modules.dropout import SampleDropout
from unigeoseg.tasks import INTERACTIVE, REASONING, REFERRING, TASK_IDS, TASKS


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension in float32, zero where ``mask`` is false (rows are never all false)."""
    return scores.float().masked_fill(~mask, float("-inf")).softmax(-1)


class InteractiveBranch(nn.Module):
    """Equation 1: Fusion([E_i ; Proj(C)]) for every token i.

    C is the fixed vector of six coordinates in [-1, 1] (zero where not given) with its seven validity flags.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(13, width)
        self.fusion = nn.Linear(2 * width, width)

    def forward(self, text: Tensor, coordinates: Tensor, given: Tensor) -> Tensor:
        """``text [B, L, d]``, ``coordinates [B, 6]`` in [0, 1], ``given [B, 7]`` bool to ``[B, L, d]``."""
        values = (2 * coordinates - 1) * given[:, :6]
        vector = torch.cat([values, given.to(values.dtype)], dim=-1).to(text.dtype)
        prompt = self.proj(vector)[:, None].expand_as(text)
        fused: Tensor = self.fusion(torch.cat([text, prompt], dim=-1))
        return fused


class ReferringBranch(nn.Module):
    """Equation 2: tokens re-weighted by a = softmax(q E^T / sqrt d).

    As a sequence, E_i * (L a_i): uniform attention changes nothing. As printed, the sum a E, broadcast.
    """

    def __init__(self, width: int, pooled: bool) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(width) * width**-0.5)
        self.pooled = pooled

    def forward(self, text: Tensor, mask: Tensor) -> Tensor:
        """``text [B, L, d]``, ``mask [B, L]`` to ``[B, L, d]``."""
        scores = text @ self.query / math.sqrt(text.shape[-1])
        weights = masked_softmax(scores, mask)
        if self.pooled:
            pooled = (weights[..., None] * text).sum(1, keepdim=True)
            return pooled.to(text.dtype).expand_as(text)
        length = mask.sum(1, keepdim=True)
        return text * (weights * length)[..., None].to(text.dtype)


class ReasoningBranch(nn.Module):
    """Equations 3-4: LN(Dropout((1/h) sum_i softmax(q_i E^T / sqrt d) E + E W_G))."""

    def __init__(self, width: int, queries: int, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.gate = nn.Linear(width, width, bias=False)
        self.dropout = SampleDropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, text: Tensor, mask: Tensor) -> Tensor:
        """``text [B, L, d]``, ``mask [B, L]`` to ``[B, L, d]``."""
        scores = torch.einsum("hd,bld->bhl", self.queries, text) / math.sqrt(text.shape[-1])
        weights = masked_softmax(scores, mask[:, None]).to(text.dtype)
        pooled = (weights @ text).mean(1, keepdim=True)
        enhanced: Tensor = self.norm(self.dropout(pooled + self.gate(text)))
        return enhanced


class TATE(nn.Module):
    """Equation 5: each sample's instruction tokens through the branch of its own task.

    Every branch is computed for every sample and selected by multiplication with 0 or 1, so that all ranks
    run the same collectives and unused branches get a zero gradient rather than none.
    """

    def __init__(self, config: TATEConfig, width: int) -> None:
        super().__init__()
        self.branches = config.branches
        self.interactive = InteractiveBranch(width)
        self.referring = ReferringBranch(width, config.referring_form == "pooled")
        self.reasoning = ReasoningBranch(width, config.reasoning_queries, config.dropout)

    def forward(self, text: Tensor, mask: Tensor, task: Tensor, coordinates: Tensor, given: Tensor) -> Tensor:
        """Enhanced instruction embeddings.

        Args:
            text: ``[B, L, d]`` instruction embeddings, padded on the right.
            mask: bool ``[B, L]``, true at real tokens.
            task: int64 ``[B]``.
            coordinates: float ``[B, 6]`` in [0, 1].
            given: bool ``[B, 7]``.

        Returns:
            ``[B, L, d]``.
        """
        outputs = torch.stack(
            [
                self.interactive(text, coordinates, given),
                self.referring(text, mask),
                self.reasoning(text, mask),
            ]
        )
        chosen = self._selection(task).to(outputs.dtype)
        enhanced = (chosen.T[:, :, None, None] * outputs).sum(0)
        if self.branches == "none":
            return text + 0 * enhanced
        return enhanced

    def _selection(self, task: Tensor) -> Tensor:
        if self.branches == REFERRING:
            task = torch.full_like(task, TASK_IDS[REFERRING])
        elif self.branches == REASONING:
            task = torch.full_like(task, TASK_IDS[REASONING])
        return nn.functional.one_hot(task, len(TASKS))


assert TASKS == (INTERACTIVE, REFERRING, REASONING)  # the order in which the branches are stacked
