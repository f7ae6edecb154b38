"""UniGeoSeg, whole: image and instruction in, mask out (arXiv 2511.23332; shapes in comments)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from unigeoseg.config import ModelConfig
from unigeoseg.losses.mask_watch import watch_masks
from unigeoseg.losses.terms import Losses, mask_losses
from unigeoseg.metrics import logit
from unigeoseg.modules.connector import Connector
from unigeoseg.modules.coordinates import feature_sides
from unigeoseg.modules.language import LanguageModel
from unigeoseg.modules.lkm import LatentKnowledgeMemory
from unigeoseg.modules.mask_decoder import MaskDecoder
from unigeoseg.modules.pixel_decoder import PixelDecoder
from unigeoseg.modules.query import InstructionPooling, QueryBuilder
from unigeoseg.modules.tate import TATE
from unigeoseg.modules.vision import make_encoder
from unigeoseg.modules.where import Labelled
from unigeoseg.samples.batch import Batch
from unigeoseg.tasks import TASKS


class Seen(NamedTuple):
    """What the model sees in I images.

    Attributes:
        features: res2 to res5 of the encoder.
        fine: the pixel decoder's map ``[I, c, S/4, S/4]``.
        levels: its three maps, coarse to fine.
    """

    features: list[Tensor]
    fine: Tensor
    levels: list[Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of all maps."""
        return sum(one.nbytes for one in (*self.features, self.fine, *self.levels))


class UniGeoSeg(nn.Module):
    """The model in ``paper`` mode; :mod:`unigeoseg.released` overrides its underscored methods.

    Args:
        config: shapes and switches.
        vocab_size: number of token ids of the tokenizer.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        sides = list(feature_sides(config.image_size, config.vision.patch))
        self.vision = make_encoder(config.vision, config.image_size)
        self.language = LanguageModel(config.language, vocab_size)
        width = self.language.width
        self.connector = Connector(config.connector, self.vision.widths[-1], sides[-1], width)
        self._add_text_parts(width)
        self.query = QueryBuilder(
            width, self.vision.widths[-1], config.decoder.query_width, config.decoder.hidden
        )
        self.pixel_decoder = PixelDecoder(config.decoder, self.vision.widths, sides)
        self.mask_decoder = MaskDecoder(config.decoder, sides)

    def _add_text_parts(self, width: int) -> None:
        self.tate = TATE(self.config.tate, width)
        self.lkm = LatentKnowledgeMemory(self.config.lkm, width)
        self.pooling = InstructionPooling(width)

    def enable_activation_checkpointing(self) -> None:
        """Recomputes the large blocks in the backward pass instead of keeping their activations."""
        self.vision.checkpointing = True
        self.pixel_decoder.checkpointing = True
        language = self.language.model
        # Renamed in transformers 5.2x; both spellings use the non-reentrant form by default.
        enable = getattr(language, "activation_checkpointing_enable", language.gradient_checkpointing_enable)
        enable()

    def enable_compilation(self, backend: str = "inductor") -> None:
        """Compiles the encoder's stages and the language model's blocks in place (``torch.compile``).

        Fewer, fused kernels; parameters keep their names. The decoders stay as they are: their time is in
        kernels that compilation does not touch, and on a GPU it brought them nothing.

        Args:
            backend: of ``torch.compile``.
        """
        blocks = getattr(self.language.model.get_decoder(), "layers", ())
        for block in (*self.vision.compiled_parts(), *blocks):
            block.compile(backend=backend)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Losses:
        """The training losses of a micro-batch, as sums over its instructions.

        Args:
            batch: with ``masks``.
            generator: CPU generator of the loss points; the same state on every rank.
        """
        if batch.masks is None:
            raise ValueError("a batch without masks has no loss; use predict")
        predictions, states = self._run(batch)
        weights = self.config.loss
        bce, dice = mask_losses(predictions, batch.masks, batch.keys, weights, generator)
        language = self._language_loss(states, batch.located().labelled)  # [B]
        return sum_losses(
            batch,
            {
                "mask_bce": (weights.bce, bce),
                "mask_dice": (weights.dice, dice),
                "language": (weights.language, language),
            },
            watch_masks(predictions[-1], batch.masks, logit(self.config.threshold)),
        )

    @torch.inference_mode()
    def look(self, images: Tensor) -> Seen:
        """What the model sees in letterboxed images uint8 ``[I, 3, S, S]``, whatever is asked of them."""
        features = self.vision(images)
        return Seen(features, *self.pixel_decoder(features))

    @torch.inference_mode()
    def predict(self, batch: Batch, seen: Seen | None = None) -> Tensor:
        """Mask logits float32 ``[B, S, S]`` at the letterboxed size; foreground is > 0.

        Args:
            batch: images and instructions.
            seen: what :meth:`look` gave for the same images, which are then not looked at again.
        """
        predictions, _ = self._run(batch, seen)
        size = self.config.image_size
        last = predictions[-1][:, None].float()
        return nn.functional.interpolate(last, size=(size, size), mode="bilinear", align_corners=False)[:, 0]

    def _run(self, batch: Batch, seen: Seen | None = None) -> tuple[Tensor, Tensor]:
        # res2..res5, once for all instructions of an image
        features = (batch.features or self.vision(batch.images)) if seen is None else seen.features
        states = self._read(self._embeddings(batch, features[-1]), batch)  # [B, L, d]
        state = self._instruction_state(states, batch)  # [B, d]
        query = self.query(state, features[-1], batch.image_index)  # [B, c]
        mask_features, levels = self.pixel_decoder(features) if seen is None else (seen.fine, seen.levels)
        given = self._drawn_prompts(batch)
        return self.mask_decoder(query, mask_features, levels, batch.image_index, *given), states

    def _drawn_prompts(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the mask decoder draws, if it draws any."""
        return (batch.coordinates, batch.coordinate_mask) if self.config.decoder.prompt_maps else ()

    def _embeddings(self, batch: Batch, res5: Tensor) -> Tensor:
        """Template, image tokens, enhanced instruction, reply: ``[B, L, d]``."""
        embedded = self.language.embed(batch.input_ids)
        image_tokens = self.connector(res5)[batch.image_index]  # [B, N, d]
        where, tokens = batch.located().image, image_tokens.to(embedded.dtype).flatten(0, 1)
        embedded = embedded.flatten(0, 1).index_copy(0, where, tokens).unflatten(0, embedded.shape[:2])
        return self._enhance(embedded, batch)

    def _enhance(self, embedded: Tensor, batch: Batch) -> Tensor:
        """TATE on the instruction's tokens; all others stay as they are."""
        window = batch.located().instruction
        text = window.take(embedded)  # [B, Li, d]
        enhanced = self.tate(text, window.given, batch.task, batch.coordinates, batch.coordinate_mask)
        return window.put(embedded, enhanced)

    def _read(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """Final hidden states of the language model, ``[B, L, d]``."""
        return self.language(embeddings, packing=batch.packing)

    def _instruction_state(self, states: Tensor, batch: Batch) -> Tensor:
        """Memory and pooling: one state per instruction, ``[B, d]``."""
        return self.pooling(self.lkm(states), batch.instruction_mask)

    def _language_loss(self, states: Tensor, labelled: Labelled) -> Tensor:
        """Cross-entropy float32 ``[B]``."""
        return self.language.loss(states, labelled)


def sum_losses(batch: Batch, parts: dict[str, tuple[float, Tensor]], watched: Tensor) -> Losses:
    """The losses of a micro-batch.

    Args:
        batch: it.
        parts: name to weight and value per instruction, ``[B]``.
        watched: ``[5, B]`` from :func:`unigeoseg.losses.mask_watch.watch_masks`.
    """
    each = torch.stack([weight * value for weight, value in parts.values()]).sum(0)  # [B]
    zeros = each.new_zeros(len(TASKS))
    return Losses(
        total=each.sum(),
        parts={name: value.detach().sum() for name, (_, value) in parts.items()},
        per_task=zeros.index_add(0, batch.task, each.detach()),
        counts=batch.located().tasks,
        watched=watched.new_zeros(len(watched), len(TASKS)).index_add(1, batch.task, watched),
    )
