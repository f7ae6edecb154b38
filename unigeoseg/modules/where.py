"""Where a batch's tokens are, as indices made on the host before the batch goes to a GPU.

A mask's indices on a GPU cost a wait: their number must come back before the next kernel can be queued
(``masked_scatter``, boolean indexing, ``nonzero``, ``bincount``). The host knows them all.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from unigeoseg.tasks import TASKS

T = TypeVar("T", bound="Window | Labelled")
Change = Callable[[Tensor], Tensor]


def _changed(parts: T, change: Change) -> T:
    values: dict[str, Any] = {f.name: change(getattr(parts, f.name)) for f in dataclasses.fields(parts)}
    return dataclasses.replace(parts, **values)


@dataclass(frozen=True)
class Window:
    """One run of tokens a row of a batch ``[B, L]``; Li is the longest run, n the tokens of all.

    Attributes:
        places: int64 ``[B, Li]``, of the tokens in the flattened batch; any token's behind a run's end.
        given: bool ``[B, Li]``, where there is one.
        own: int64 ``[n]``, of the tokens in the flattened ``[B, Li]``.
        back: int64 ``[n]``, of the same tokens in the flattened batch.
    """

    places: Tensor
    given: Tensor
    own: Tensor
    back: Tensor

    @staticmethod
    def of(mask: Tensor) -> "Window":
        """Of a mask ``[B, L]`` that is true on one run of tokens a row."""
        lengths = mask.sum(1)
        offsets = torch.arange(int(lengths.max()), device=mask.device)[None]
        starts = mask.int().argmax(1, keepdim=True)
        columns = (starts + offsets).clamp(max=mask.shape[1] - 1)
        places = torch.arange(len(mask), device=mask.device)[:, None] * mask.shape[1] + columns
        given = offsets < lengths[:, None]
        own = given.flatten().nonzero()[:, 0]
        return Window(places, given, own, places.flatten()[own])

    def take(self, tokens: Tensor) -> Tensor:
        """The runs of ``[B, L, d]``, ``[B, Li, d]``."""
        return tokens.flatten(0, 1).index_select(0, self.places.flatten()).unflatten(0, self.places.shape)

    def put(self, tokens: Tensor, changed: Tensor) -> Tensor:
        """``tokens [B, L, d]`` with the runs ``changed [B, Li, d]`` in their places."""
        new = changed.flatten(0, 1).index_select(0, self.own)
        return tokens.flatten(0, 1).index_copy(0, self.back, new).unflatten(0, tokens.shape[:2])


@dataclass(frozen=True)
class Labelled:
    """The n labelled tokens of a batch ``[B, L]``, row by row.

    Attributes:
        states: int64 ``[n]``, of the state that predicts each, in the flattened batch.
        targets: int64 ``[n]``, their ids.
        rows: int64 ``[n]``, of the batch.
        counts: int64 ``[B]``, how many a row has.
    """

    states: Tensor
    targets: Tensor
    rows: Tensor
    counts: Tensor

    @staticmethod
    def of(labels: Tensor) -> "Labelled":
        """Of labels ``[B, L]``, -100 where there is none.

        They are aligned with the inputs: token t is predicted from state t - 1.
        """
        targets = labels[:, 1:]
        rows, columns = (targets >= 0).nonzero(as_tuple=True)
        counts = torch.bincount(rows, minlength=len(labels))
        return Labelled(rows * labels.shape[1] + columns, targets[rows, columns], rows, counts)


@dataclass(frozen=True)
class Where:
    """What a model asks of a batch's masks.

    Attributes:
        image: int64 ``[B * N]``, of the image tokens in the flattened batch.
        instruction: the instructions' tokens.
        labelled: the tokens that a loss is taken of.
        tasks: int64 ``[T]``, instructions of each task.
    """

    image: Tensor
    instruction: Window
    labelled: Labelled
    tasks: Tensor

    @staticmethod
    def of(image_mask: Tensor, instruction_mask: Tensor, labels: Tensor, task: Tensor) -> "Where":
        """Of a batch's tensors, on the device where they are."""
        return Where(
            image_mask.flatten().nonzero()[:, 0],
            Window.of(instruction_mask),
            Labelled.of(labels),
            torch.bincount(task, minlength=len(TASKS)),
        )

    def changed(self, change: Change) -> "Where":
        """The same with ``change`` of every tensor."""
        parts = _changed(self.instruction, change), _changed(self.labelled, change)
        return Where(change(self.image), *parts, change(self.tasks))
