"""AdamW with Muon for the weights of hidden layers, on the flat tensors that DeepSpeed cuts from them.

ZeRO stages 1 and 2 hand the optimizer one flat tensor a group, this rank's part of all parameters end to
end. Momentum is taken element by element there; a matrix that lies within is turned in its place, and the
few that a cut goes through are put together by one all-reduce first. So each matrix is turned once over all
ranks (twice where it is cut), and the work divides as the optimizer's memory does.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.train.engine.distributed import gathered
from pipelines.train.engine.spans import Span
from unigeoseg.optim.orthogonal import orthogonal, step_scale

_MOMENTUM = 0.95


class MuonAdamW(torch.optim.AdamW):
    """``torch.optim.AdamW``; groups with ``muon=True`` are trained by orthogonalised momentum.

    With momentum m = 0.95 m + 0.05 g, a matrix moves by ``lr * 0.2 sqrt(max(r, c))`` along the orthogonalised
    0.95 m + 0.05 g, and decays as in AdamW. Its state is ``step`` and ``exp_avg`` (m).
    """

    def __init__(self, groups: list[dict[str, Any]], **settings: Any) -> None:
        super().__init__(groups, **settings)
        self._spans: dict[int, list[Span]] | None = None
        self._cut: dict[str, int] = {}

    def place(self, spans: Iterable[Span]) -> None:
        """Says which parameters the flat tensors hold; a collective call, before the first step.

        Args:
            spans: of this rank's flat tensors; what they leave out is padding. Without a call, parameters
                are taken to be whole.
        """
        turned = {id(p) for group in self.param_groups if group.get("muon") for p in group["params"]}
        placed = [span for span in spans if id(span.flat) in turned]
        self._spans = {}
        for span in placed:
            self._spans.setdefault(id(span.flat), []).append(span)
        own = [(span.name, span.numel) for span in placed if span.count < span.numel]
        self._cut = dict(sorted(pair for one in gathered(own) for pair in one))

    def moments(self, flat: Tensor) -> tuple[str, ...]:
        """Which moments are kept of a tensor that the optimizer updates."""
        turned = any(p is flat for group in self.param_groups if group.get("muon") for p in group["params"])
        return ("exp_avg",) if turned else ("exp_avg", "exp_avg_sq")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update; a collective call where matrices are cut."""
        groups = self.param_groups  # DeepSpeed gives one group at a time, or all
        self.param_groups = [group for group in groups if not group.get("muon")]
        try:
            loss = super().step(closure) if self.param_groups else None
        finally:
            self.param_groups = groups
        for group in groups:
            if group.get("muon"):
                self._turn(group)
        return loss

    def _turn(self, group: dict[str, Any]) -> None:
        whole: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        parts: list[tuple[Span, Tensor, Tensor]] = []
        for weight in group["params"]:
            if weight.grad is None:
                continue
            along = self._momentum(weight).view(-1)
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            flat = weight.view(-1)
            known = [Span.of_whole(weight)] if self._spans is None else self._spans.get(id(weight), ())
            for span in known:
                piece, target = (t.narrow(0, span.offset, span.count) for t in (along, flat))
                if span.count < span.numel:
                    parts.append((span, piece, target))
                else:
                    shape = span.matrix
                    whole.setdefault(shape, []).append((piece.view(shape), target.view(shape)))
        for shape, members in whole.items():
            turned = orthogonal(torch.stack([piece for piece, _ in members]))
            for (_, target), update in zip(members, turned, strict=True):
                target.add_(update, alpha=-group["lr"] * step_scale(*shape))
        self._turn_cut(parts, group)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0, dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(weight)
        state["step"] += 1
        gradient: Tensor = weight.grad  # type: ignore[assignment]
        state["exp_avg"].lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp_(state["exp_avg"], _MOMENTUM)  # in its place: nothing asks for it after the step

    def _turn_cut(self, parts: list[tuple[Span, Tensor, Tensor]], group: dict[str, Any]) -> None:
        """Matrices that several ranks hold parts of: every rank takes part in putting them together."""
        names = {name: numel for name, numel in self._cut.items() if name in group["names"]}
        if not names:
            return
        starts, total = {}, 0
        for name, numel in names.items():
            starts[name], total = total, total + numel
        together = torch.zeros(total, device=group["params"][0].device)
        for span, piece, _ in parts:
            together.narrow(0, starts[span.name] + span.start, span.count).copy_(piece)
        dist.all_reduce(together)
        for span, _, target in parts:
            matrix = together.narrow(0, starts[span.name], span.numel).view(1, *span.matrix)
            update = orthogonal(matrix).reshape(-1).narrow(0, span.start, span.count)
            target.add_(update, alpha=-group["lr"] * step_scale(*span.matrix))
