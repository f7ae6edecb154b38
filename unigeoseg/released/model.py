"""UniGeoSeg as the released code computes it: the shared model with other text parts."""

import dataclasses

from torch import Tensor

from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError
from unigeoseg.model import UniGeoSeg
from unigeoseg.modules.query import InstructionPooling
from unigeoseg.modules.where import Labelled, Window
from unigeoseg.released.tate import ReleasedMemory, ReleasedTATE
from unigeoseg.samples.batch import Batch


class ReleasedUniGeoSeg(UniGeoSeg):
    """As :class:`~unigeoseg.model.UniGeoSeg`; ``config.mode`` is ``released``.

    Args:
        config: shapes and switches; padded windows and an output layer without bias whatever it says.
        vocab_size: rows of the embedding.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(pinned(config), vocab_size)

    def _add_text_parts(self, width: int) -> None:
        self.released_tate = ReleasedTATE(self.config.tate, width)
        self.released_memory = ReleasedMemory(self.config.lkm, width)
        self.pooling = InstructionPooling(width)

    def _enhance(self, embedded: Tensor, batch: Batch) -> Tensor:
        template = template_mask(batch)
        window = Window.of(template)
        enhanced = self.released_tate(
            window.take(embedded),
            window.given,
            batch.task,
            batch.coordinates,
            batch.coordinate_mask,
            self.pooling.query,
        )
        embedded = window.put(embedded, enhanced)
        tokens = batch.attention_mask if batch.token_mask is None else batch.token_mask
        return embedded * tokens[..., None].to(embedded.dtype)

    def _read(self, embeddings: Tensor, batch: Batch) -> Tensor:
        return self.language(embeddings, batch.attention_mask)

    def _instruction_state(self, states: Tensor, batch: Batch) -> Tensor:
        pooled = self.pooling(states, batch.instruction_mask)
        return self.released_memory.recall(pooled, batch.task, self.config.lkm.task_of == "first")

    def _language_loss(self, states: Tensor, labelled: Labelled) -> Tensor:
        """Shares of the batch's token mean: their sum over B samples is B times that mean."""
        totals = self.language.loss_sums(states, labelled)
        return totals * (len(totals) / labelled.counts.sum().clamp(min=1))


def template_mask(batch: Batch) -> Tensor:
    """Bool ``[B, L]``: the template's words between the image and the instruction."""
    after_image = batch.image_mask.flip(1).cumsum(1).flip(1) == 0
    before_instruction = batch.instruction_mask.cumsum(1) == 0
    return after_image & before_instruction


def pinned(config: ModelConfig) -> ModelConfig:
    """The configuration with what this mode fixes.

    Raises:
        UserError: an option that this mode does not have.
    """
    if config.lkm.learned or config.language.path is not None:
        raise UserError(
            "model.mode=released has neither model.lkm.learned nor model.language.path: the released code "
            "has a fixed lambda and its own Phi; leave them out, or train in mode paper"
        )
    return dataclasses.replace(
        config,
        mode="released",
        vision=dataclasses.replace(config.vision, padded_windows=True),
        language=dataclasses.replace(config.language, head_bias=False),
        decoder=dataclasses.replace(config.decoder, lateral_relu=True),
    )
