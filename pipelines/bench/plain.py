"""The released code's step in plain form, to time ours beside it in the same run.

The released code is not part of this project, so its arrangement is rebuilt from the public modules that it
shares with ``transformers``: the encoder runs twice on the same images with eager window attention, every
piece of the prompt has its own embedding gather, attention maps of the language model are kept, logits and
cross-entropy are taken at all positions, deformable attention is one ``grid_sample`` per level, and every
prediction level samples its own loss points. Its matcher and its unused projections are left out, so the
stand-in is, if anything, faster than what it stands for. Weights are random: only the time counts.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig, SwinConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoder,
    Mask2FormerTransformerModule,
)
from transformers.models.swin.modeling_swin import SwinBackbone

from unigeoseg.config import ModelConfig
from unigeoseg.losses.mask_watch import watch_masks
from unigeoseg.losses.terms import Losses, mask_losses
from unigeoseg.metrics import logit
from unigeoseg.model import Seen, sum_losses
from unigeoseg.modules.vision import PIXEL_MEAN, PIXEL_STD
from unigeoseg.released.model import ReleasedUniGeoSeg
from unigeoseg.samples.batch import Batch

#: Pieces of a prompt that the released code embeds one by one.
_PIECES = 7
_IGNORE = -100


class PlainStep(ReleasedUniGeoSeg):
    """As :class:`~unigeoseg.released.model.ReleasedUniGeoSeg`, without anything that saves time.

    Args:
        config: shapes; training only.
        vocab_size: rows of the embedding.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        parts = _reference_config(config)
        self.vision = _Encoder(parts, config.vision.frozen)  # type: ignore[assignment]
        self.pixel_decoder = _PixelDecoder(parts, self.vision.widths)  # type: ignore[assignment]
        self.mask_decoder = _MaskDecoder(parts)  # type: ignore[assignment]
        self.language.model.set_attn_implementation("eager")

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Losses:
        """The training losses; see :class:`~unigeoseg.model.UniGeoSeg`."""
        assert batch.masks is not None
        predictions, states = self._run(batch)
        weights = self.config.loss
        levels = [
            mask_losses(level[None], batch.masks, batch.keys, weights, generator) for level in predictions
        ]
        bce, dice = (torch.stack(parts).sum(0) for parts in zip(*levels, strict=True))
        language = self._plain_language_loss(states, batch.labels)
        return sum_losses(
            batch,
            {
                "mask_bce": (weights.bce, bce),
                "mask_dice": (weights.dice, dice),
                "language": (weights.language, language),
            },
            watch_masks(predictions[-1], batch.masks, logit(self.config.threshold)),
        )

    def _run(self, batch: Batch, seen: Seen | None = None) -> tuple[Tensor, Tensor]:
        assert seen is None, "the plain loop looks at every picture itself, twice"
        for_language = self.vision(batch.images)
        states = self._read(self._embeddings(batch, for_language[-1]), batch)
        state = self._instruction_state(states, batch)
        features = self.vision(batch.images)
        query = self.query(state, features[-1], batch.image_index)
        mask_features, levels = self.pixel_decoder(features)
        return self.mask_decoder(query, mask_features, levels, batch.image_index), states

    def _embeddings(self, batch: Batch, res5: Tensor) -> Tensor:
        rows = [
            torch.cat([self.language.embed(piece) for piece in ids.tensor_split(_PIECES)])
            for ids in batch.input_ids
        ]
        tokens = self.connector(res5)[batch.image_index]
        embedded = torch.stack(rows).masked_scatter(batch.image_mask[..., None], tokens)
        return self._enhance(embedded, batch)

    def _read(self, embeddings: Tensor, batch: Batch) -> Tensor:
        states: Tensor = self.language.model.get_decoder()(
            inputs_embeds=embeddings,
            attention_mask=batch.attention_mask,
            use_cache=False,
            output_attentions=True,
        ).last_hidden_state
        return states

    def _plain_language_loss(self, states: Tensor, labels: Tensor) -> Tensor:
        logits = self.language.model.get_output_embeddings()(states).float()
        targets = labels[:, 1:].flatten()
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets, ignore_index=_IGNORE)
        return loss.expand(len(labels))


def _reference_config(config: ModelConfig) -> Mask2FormerConfig:
    vision, decoder = config.vision, config.decoder
    swin = SwinConfig(
        image_size=config.image_size,
        patch_size=vision.patch,
        embed_dim=vision.embed_dim,
        depths=list(vision.depths),
        num_heads=list(vision.heads),
        window_size=vision.window,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        attn_implementation="eager",
    )
    return Mask2FormerConfig(
        backbone_config=swin,
        feature_size=decoder.hidden,
        mask_feature_size=decoder.hidden,
        hidden_dim=decoder.hidden,
        encoder_feedforward_dim=decoder.pixel_ffn,
        dim_feedforward=decoder.mask_ffn,
        encoder_layers=decoder.pixel_layers,
        decoder_layers=decoder.mask_layers + 1,
        num_attention_heads=decoder.heads,
        num_queries=1,
        dropout=0.0,
    )


class _Encoder(nn.Module):
    """Swin with eager attention; frozen by ``requires_grad`` alone."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: Mask2FormerConfig, frozen: bool) -> None:
        super().__init__()
        self.backbone: Any = SwinBackbone(config.backbone_config)
        self.widths = [config.backbone_config.embed_dim * 2**i for i in range(4)]
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD).view(1, 3, 1, 1), persistent=False)
        if frozen:
            self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        pixels = (images.float() - self.mean.float()) / self.std.float()
        return list(self.backbone(pixels.to(self.backbone.dtype)).feature_maps)


class _PixelDecoder(nn.Module):
    def __init__(self, config: Mask2FormerConfig, widths: list[int]) -> None:
        super().__init__()
        self.inner: Any = Mask2FormerPixelDecoder(config, widths)
        nn.init.normal_(self.inner.level_embed)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        found = self.inner(features)
        return found.mask_features, list(found.multi_scale_features)


class _MaskDecoder(nn.Module):
    """The decoder gets its one query per instruction in place of the learned ones."""

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        self.inner: Any = Mask2FormerTransformerModule(config.feature_size, config)

    def forward(self, query: Tensor, mask_features: Tensor, levels: list[Tensor], index: Tensor) -> Tensor:
        inner, sizes, keys, codes = self.inner, [], [], []
        for number, level in enumerate(levels):
            sizes.append(level.shape[-2:])
            code = inner.position_embedder(level.shape, level.device, level.dtype, None)
            codes.append(code.flatten(2).permute(2, 0, 1))
            value = level.flatten(2) + inner.level_embed.weight[number][None, :, None]
            keys.append(value[index].permute(2, 0, 1))
        output = inner.decoder(
            inputs_embeds=query[None],
            multi_stage_positional_embeddings=codes,
            pixel_embeddings=mask_features[index],
            encoder_hidden_states=keys,
            query_position_embeddings=torch.zeros_like(query[None]),
            feature_size_list=sizes,
            return_dict=True,
        )
        return torch.stack([prediction[:, 0] for prediction in output.masks_queries_logits])
