"""What a training or evaluation step consumes: a micro-batch of tensors."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unigeoseg.modules.packing import Packing
from unigeoseg.modules.where import Where


@dataclass
class Batch:
    """A micro-batch: I images, B instructions, sequences of L positions, letterboxed side S.

    Attributes:
        images: uint8 ``[I, 3, S, S]``, letterboxed, not normalised (the device does that).
        image_index: int64 ``[B]``, which image an instruction belongs to.
        input_ids: int64 ``[B, L]``; positions under ``image_mask`` hold the padding id.
        attention_mask: bool ``[B, L]``, true where there is a token (padding stands on the right). In
            ``released`` mode the end token may be hidden too, see ``token_mask``.
        image_mask: bool ``[B, L]``, true at the places of the image tokens.
        instruction_mask: bool ``[B, L]``, true at the user's own instruction tokens.
        labels: int64 ``[B, L]``, -100 where no loss is taken.
        task: int64 ``[B]``, index into :data:`unigeoseg.tasks.TASKS`.
        coordinates: float32 ``[B, 6]``: a box in the first four, or up to three points; zero elsewhere.
        coordinate_mask: bool ``[B, 7]``: which numbers are given, and last whether they are a box.
        keys: int64 ``[B]``, a hash of the sample id; it shifts the sample's loss points (see losses).
        masks: uint8 ``[B, S, S]`` letterboxed truth, or ``None`` at prediction time.
        sample_ids: B identifiers, in order.
        positions: the plan positions that the batch came from (empty outside training).
        token_mask: bool ``[B, L]``, true at every token, hidden or not; only ``released`` mode reads it.
        places, first: of its :class:`~unigeoseg.modules.packing.Packing`; ``None``: the padded sequences are
            read.
        distinct: how many tokens of ``first`` count; what follows repeats one (the collator's ``multiple``).
        where: indices of the masks' tokens; :meth:`to` makes them before the batch leaves the host.
        features: res2 to res5 of the images by a frozen encoder, where they were computed before the step.
    """

    images: Tensor
    image_index: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    image_mask: Tensor
    instruction_mask: Tensor
    labels: Tensor
    task: Tensor
    coordinates: Tensor
    coordinate_mask: Tensor
    keys: Tensor
    masks: Tensor | None
    sample_ids: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    token_mask: Tensor | None = None
    places: Tensor | None = None
    first: Tensor | None = None
    distinct: int | None = None
    where: Where | None = None
    features: list[Tensor] | None = None

    @property
    def packing(self) -> Packing | None:
        """Where each distinct token stands, if the batch was packed."""
        if self.places is None or self.first is None:
            return None
        return Packing(self.places, self.first)

    @property
    def tokens(self) -> int:
        """Tokens that the language model computes: padding left out, and each common one counted once."""
        return int(self.attention_mask.sum()) if self.distinct is None else self.distinct

    @property
    def computed(self) -> int:
        """Positions that the language model computes, padding with them."""
        return self.input_ids.numel() if self.first is None else len(self.first)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with every tensor on ``device``."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """The same batch in memory that a GPU reads by itself, so that :meth:`to` does not wait for it."""
        return self._changed(Tensor.pin_memory)

    def tensors(self) -> list[Tensor]:
        """All of them."""
        found: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self._changed(keep)
        return found

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values: dict[str, Any] = {name: change(v) for name, v in fields.items() if isinstance(v, Tensor)}
        if self.features is not None:
            values["features"] = [change(one) for one in self.features]
        return dataclasses.replace(self, **values, where=self.located().changed(change))

    def located(self) -> Where:
        """Where the tokens of each kind are."""
        if self.where is not None:
            return self.where
        return Where.of(self.image_mask, self.instruction_mask, self.labels, self.task)

    def __len__(self) -> int:
        return int(self.task.shape[0])
