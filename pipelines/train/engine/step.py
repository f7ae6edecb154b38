"""The result of one optimizer step, summed over ranks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from unigeoseg.losses.mask_watch import WATCHED
from unigeoseg.losses.terms import Losses
from unigeoseg.samples.batch import Batch
from unigeoseg.tasks import TASKS


@dataclass
class StepSeconds:
    """Seconds of this rank in the parts of a step: wall-clock, on a GPU of the work itself."""

    wait: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    optimizer: float = 0.0


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did; losses are means over the instructions of the global batch.

    Of a step that was left out, loss, parts and norm may be no numbers.

    Attributes:
        step: its number, from 0.
        loss: weighted total.
        parts: unweighted parts by name.
        task_sums: weighted loss summed by task.
        task_counts: instructions by task.
        watched: by name of :data:`unigeoseg.losses.mask_watch.WATCHED`, the sum over a task's predictions, by
            task.
        lr: learning rate.
        grad_norm: of the whole gradient, before clipping.
        grad_norms: of each module's part of it; empty unless it was asked for.
        images: pictures of the global batch, counted in each micro-batch.
        tokens: that the language model computed; see :attr:`unigeoseg.samples.batch.Batch.tokens`.
        seconds: this rank's time.
        told: what the ranks told one another with the step, summed over them.
    """

    step: int
    loss: float
    parts: dict[str, float]
    task_sums: dict[str, float]
    task_counts: dict[str, int]
    watched: dict[str, dict[str, float]]
    lr: float
    grad_norm: float
    grad_norms: dict[str, float]
    images: int
    tokens: int
    seconds: StepSeconds
    told: tuple[int, ...] = ()

    @property
    def instructions(self) -> int:
        """Instructions of the global batch."""
        return sum(self.task_counts.values())

    @property
    def finite(self) -> bool:
        """Whether loss and gradient norm are numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class NonFiniteLossError(RuntimeError):
    """A loss or gradient that is not finite. Its step was left out; training can go on with the next one.

    Attributes:
        result: of the step.
        what: ``"loss"`` or ``"gradient norm"``.
        batches: one list a rank of ``{"sample_ids", "loss", "parts"}``, one entry a micro-batch.
        advice: what to do about it, for people.
    """

    def __init__(
        self, result: StepResult, what: str, batches: list[list[dict[str, Any]]], advice: str = ""
    ) -> None:
        self.result, self.what, self.batches, self.advice = result, what, batches, advice
        super().__init__(f"the {what} of step {result.step} is not finite" + (advice and f"; {advice}"))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.result, self.what, self.batches, self.advice)


def plain_number(value: float) -> float | str:
    """A number as JSON has it; ``"nan"``, ``"inf"`` and ``"-inf"`` as words, because JSON lacks them."""
    return value if math.isfinite(value) else str(value)


@dataclass
class StepTotals:
    """This rank's sums over its micro-batches.

    Attributes:
        by_batch: loss and sample ids of each micro-batch (tensors until they are asked for).
    """

    _losses: list[Losses] = field(default_factory=list)
    _batches: list[Batch] = field(default_factory=list)

    def add(self, losses: Losses, batch: Batch) -> None:
        """Takes one micro-batch in."""
        self._losses.append(losses)
        self._batches.append(batch)

    @property
    def by_batch(self) -> list[dict[str, Any]]:
        """What a diagnostic file says about each micro-batch."""
        return [
            {
                "sample_ids": batch.sample_ids,
                "loss": plain_number(float(losses.total.detach())),
                "parts": {name: plain_number(float(value)) for name, value in losses.parts.items()},
            }
            for losses, batch in zip(self._losses, self._batches, strict=True)
        ]

    def reduced(self, device: torch.device, told: Sequence[int] = ()) -> "ReducedTotals":
        """The sums over all ranks: one small all-reduce in float64, whose result nobody waits for yet.

        It runs beside the backward pass: a rank that is ahead in the forward pass need not stand still for
        the others twice in a step.

        Args:
            device: for it.
            told: whole numbers of this rank that travel along.
        """
        names = sorted(self._losses[0].parts)
        rows = [
            torch.cat(
                [
                    torch.stack([losses.total.detach(), *(losses.parts[n] for n in names)]).double(),
                    losses.per_task.double(),
                    losses.counts.double(),
                    losses.watched.double().flatten(),
                    losses.per_task.new_full((1,), len(batch.images), dtype=torch.float64),
                    losses.per_task.new_full((1,), batch.tokens, dtype=torch.float64),
                ]
            )
            for losses, batch in zip(self._losses, self._batches, strict=True)
        ]
        sums = torch.stack(rows).sum(0)
        along = [sums.new_full((1,), number) for number in told]  # filled there: a copy would be waited for
        values = torch.cat([*along, sums]).to(device)
        finite = torch.isfinite(sums).all()
        return ReducedTotals(names, len(told), values, finite, dist.all_reduce(values, async_op=True))


@dataclass
class ReducedTotals:
    """Global sums of a step: told, total, parts, tasks' sums, counts and watched, images, tokens.

    They stay on the device until they are asked for: whoever asks waits for all that was queued before.

    Attributes:
        names: of the parts.
        told: how many of the sums are of what the ranks told one another.
        values: the sums, once ``work`` is done.
        own_finite: whether this rank's own sums are numbers.
        work: the all-reduce.
    """

    names: list[str]
    told: int
    values: Tensor
    own_finite: Tensor
    work: Any

    def scaled(self, total: Tensor, scale: float) -> Tensor:
        """``total * scale``; NaN where this rank's sums are no numbers, so that no gradient is one either.

        Summed over the ranks, the gradient is none on any of them then.
        """
        return total * torch.where(self.own_finite.to(total.device), scale, math.nan).to(total.dtype)

    @property
    def finite(self) -> bool:
        """Whether all sums are numbers."""
        return bool(torch.isfinite(self._done()).all())

    def _done(self) -> Tensor:
        self.work.wait()
        return self.values

    def result(
        self, step: int, lr: float, grad_norm: float, grad_norms: dict[str, float], seconds: StepSeconds
    ) -> StepResult:
        """Means over the instructions, with the rest of the step's facts."""
        numbers = self._done().tolist()
        told, numbers = numbers[: self.told], numbers[self.told :]
        by_task = numbers[1 + len(self.names) : -2]
        rows = [by_task[i : i + len(TASKS)] for i in range(0, len(by_task), len(TASKS))]
        sums, counts, *watched = (dict(zip(TASKS, row, strict=True)) for row in rows)
        count = max(1.0, sum(counts.values()))
        return StepResult(
            step=step,
            loss=numbers[0] / count,
            parts={name: numbers[1 + i] / count for i, name in enumerate(self.names)},
            task_sums=sums,
            task_counts={task: int(n) for task, n in counts.items()},
            watched=dict(zip(WATCHED, watched, strict=True)),
            lr=lr,
            grad_norm=grad_norm,
            grad_norms=grad_norms,
            images=int(numbers[-2]),
            tokens=int(numbers[-1]),
            seconds=seconds,
            told=tuple(int(number) for number in told),
        )
