"""The released code's text enhancement, on the template's words, and its knowledge memory."""

import math

import torch
from torch import Tensor, nn

from unigeoseg.config import TATEConfig
from unigeoseg.modules.dropout import SampleDropout
from unigeoseg.modules.lkm import LatentKnowledgeMemory
from unigeoseg.modules.tate import masked_softmax
from unigeoseg.tasks import INTERACTIVE, TASK_IDS, TASKS


class ReleasedTATE(nn.Module):
    """Template embeddings through all three branches, selected by the sample's task."""

    def __init__(self, config: TATEConfig, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(4, width)
        self.fusion = nn.Linear(2 * width, width)
        self.queries = nn.Parameter(torch.randn(config.reasoning_queries, width) * width**-0.5)
        self.gate = nn.Linear(width, width)
        self.merge = nn.Linear(2 * width, width)
        self.dropout = SampleDropout(config.dropout)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, text: Tensor, mask: Tensor, task: Tensor, coordinates: Tensor, given: Tensor, query: Tensor
    ) -> Tensor:
        """Enhanced embeddings ``[B, L, d]``.

        Args:
            text: ``[B, L, d]``, padded on the right.
            mask: bool ``[B, L]``.
            task: int64 ``[B]``.
            coordinates: float ``[B, 6]``.
            given: bool ``[B, 7]``.
            query: ``[d]``, the pooling's own query.
        """
        weights = masked_softmax(text @ query / math.sqrt(text.shape[-1]), mask)
        outputs = torch.stack(
            [
                self._interactive(text, coordinates, given),
                text * weights[..., None].to(text.dtype),
                self._reasoning(text, mask).expand_as(text),
            ]
        )
        chosen = nn.functional.one_hot(task, len(TASKS)).to(outputs.dtype)
        return (chosen.T[:, :, None, None] * outputs).sum(0)

    def _interactive(self, text: Tensor, coordinates: Tensor, given: Tensor) -> Tensor:
        rows, valid = coordinate_rows(coordinates, given)
        prompt = self.proj(rows.to(text.dtype)) * valid[..., None].to(text.dtype)
        prompt = nn.functional.pad(prompt, (0, 0, 0, text.shape[1] - rows.shape[1]))
        fused: Tensor = self.fusion(torch.cat([text, prompt], dim=-1))
        return fused

    def _reasoning(self, text: Tensor, mask: Tensor) -> Tensor:
        """One vector for the whole text, ``[B, 1, d]``."""
        scores = torch.einsum("hd,bld->bhl", self.queries, text) / math.sqrt(text.shape[-1])
        pooled = (masked_softmax(scores, mask[:, None]).to(text.dtype) @ text).mean(1, keepdim=True)
        share = (mask / mask.sum(1, keepdim=True))[:, None].to(text.dtype)
        mean = share @ self.gate(text)
        enhanced: Tensor = self.norm(self.dropout(self.merge(torch.cat([pooled, mean], dim=-1))))
        return enhanced


def coordinate_rows(coordinates: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ``[B, 3, 4]`` and their validity ``[B, 3]``: a box is one row, a point a row (x, y, 0, 0).

    Without coordinates there is one row of zeros.
    """
    points = nn.functional.pad(coordinates.view(-1, 3, 2), (0, 2))
    box = nn.functional.pad(coordinates[:, None, :4], (0, 0, 0, 2))
    is_box = given[:, 6, None]
    valid = given[:, :6:2] & ~(is_box & torch.tensor([False, True, True], device=given.device))
    first = torch.tensor([True, False, False], device=given.device)
    return torch.where(is_box[..., None], box, points), valid | first


class ReleasedMemory(LatentKnowledgeMemory):
    """The memory on pooled states ``[B, d]``; its weight is zero for interactive samples."""

    def recall(self, states: Tensor, task: Tensor, first: bool) -> Tensor:
        """``states [B, d]``, ``task [B]`` to ``[B, d]``; ``first``: the first sample's task decides."""
        if self.memory is None:
            return states
        deciding = task[:1] if first else task
        weight = (self.weight * (deciding != TASK_IDS[INTERACTIVE]).to(states.dtype))[:, None]
        scores = (states @ self.memory.T).float().softmax(-1).to(states.dtype)
        return (1 - weight) * states + weight * (scores @ self.memory)
