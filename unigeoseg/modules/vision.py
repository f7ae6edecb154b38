"""Swin Transformer features at four strides (timm's blocks), normalised as Mask2Former's Swin does."""

from typing import Any

from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unigeoseg.config import VisionConfig
from unigeoseg.modules.backbone import BackboneEncoder
from unigeoseg.modules.coordinates import feature_sides
from unigeoseg.modules.encoder import Encoder
from unigeoseg.modules.swin import PaddedSwin

#: ImageNet statistics on the 0-255 scale, RGB (the released preprocessing).
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


def make_encoder(config: VisionConfig, image_size: int) -> Encoder:
    """Swin of the configured sizes, or the timm backbone that is named."""
    return BackboneEncoder(config, image_size) if config.backbone else VisionEncoder(config, image_size)


class VisionEncoder(Encoder):
    """Swin: res2..res5, ``[I, embed_dim * 2^i, S / (patch * 2^i), ...]``."""

    def __init__(self, config: VisionConfig, image_size: int) -> None:
        super().__init__(config, PIXEL_MEAN, PIXEL_STD)
        self.widths = [config.embed_dim * 2**i for i in range(4)]
        self.swin: Any = _swin(config, image_size)
        blocks = [m for m in self.swin.modules() if isinstance(m, SwinTransformerBlock)]
        self._shifted = [block for block in blocks if block.attn_mask is not None]
        self.norms = nn.ModuleList(nn.LayerNorm(w) for w in self.widths)
        self._freeze()

    def compiled_parts(self) -> list[nn.Module]:
        """The stages."""
        return list(self.swin.layers)

    def _features(self, pixels: Tensor) -> list[Tensor]:
        for block in self._shifted:  # an engine casts weights and may leave buffers in float32
            block.attn_mask = block.attn_mask.to(pixels.dtype)
        x = self.swin.patch_embed(pixels)
        features = []
        for stage, norm in zip(self.swin.layers, self.norms, strict=True):
            x = checkpoint(stage, x, use_reentrant=False) if self._recompute() else stage(x)
            features.append(norm(x).permute(0, 3, 1, 2).contiguous())
        return features


def _swin(config: VisionConfig, image_size: int) -> nn.Module:
    channels = 5 if config.coordinate_channels else 3
    if config.padded_windows:
        sides = feature_sides(image_size, config.patch)
        return PaddedSwin(
            channels, config.embed_dim, config.depths, config.heads, config.window, config.patch, list(sides)
        )
    swin: nn.Module = SwinTransformer(
        img_size=image_size,
        patch_size=config.patch,
        in_chans=channels,
        num_classes=0,
        global_pool="",
        embed_dim=config.embed_dim,
        depths=config.depths,
        num_heads=config.heads,
        window_size=config.window,
        drop_path_rate=0.0,
    )
    swin.norm = nn.Identity()
    return swin
