"""Any timm backbone with features at strides 4, 8, 16 and 32 as the vision encoder, in place of Swin."""

from difflib import get_close_matches
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unigeoseg.config import VisionConfig
from unigeoseg.errors import UserError
from unigeoseg.modules.coordinates import feature_sides
from unigeoseg.modules.encoder import Encoder

_STRIDES = [4, 8, 16, 32]


class BackboneEncoder(Encoder):
    """A timm model whose pixels are normalised as it was trained.

    Batch norms keep the statistics they come with: those of a few images would depend on how a batch is split
    over workers. So a convolutional backbone wants weights (``init.vision``); from scratch its norms do
    nothing but scale.

    Raises:
        UserError: timm has no such model, or it does not give maps at these strides.
    """

    def __init__(self, config: VisionConfig, image_size: int) -> None:
        mean, std = ([255 * v for v in _statistics(config.backbone, name)] for name in ("mean", "std"))
        super().__init__(config, mean, std)
        self.backbone: Any = _create(config.backbone, image_size, 5 if config.coordinate_channels else 3)
        info: Any = self.backbone.feature_info
        self.widths = [int(width) for width in info.channels()]
        norms = [m for m in self.backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._fixed_norms = norms
        self._last = _channels_last(self.backbone, config.backbone, image_size)
        convolutions = [m for m in self.backbone.modules() if isinstance(m, nn.Conv2d)]
        self._depthwise = any(m.groups == m.in_channels > 1 for m in convolutions)
        self._freeze()
        self.train(self.training)

    def train(self, mode: bool = True) -> "BackboneEncoder":
        """As usual, except for a frozen encoder and for batch norms, which stay in eval mode."""
        super().train(mode)
        for norm in self._fixed_norms:
            norm.eval()
        return self

    def compiled_parts(self) -> list[nn.Module]:
        """All of it."""
        return [self.backbone]

    def _features(self, pixels: Tensor) -> list[Tensor]:
        if self._depthwise and pixels.device.type == "cpu":
            # Depthwise convolutions take two thirds of the time on pixels whose channels lie side by side;
            # ordinary ones gain nothing.
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        if self._recompute():
            maps = checkpoint(self.backbone, pixels, use_reentrant=False)
        else:
            maps = self.backbone(pixels)
        return [(m.permute(0, 3, 1, 2) if self._last else m).contiguous() for m in maps]


def check_backbone(name: str) -> None:
    """Refuses a name that timm does not know; builds nothing.

    Raises:
        UserError: with the nearest names.
    """
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"; near it: {', '.join(close)}" if close else ""
        raise UserError(f"model.vision.backbone={name}: timm has no such model{hint}")


def _create(name: str, image_size: int, channels: int) -> nn.Module:
    check_backbone(name)
    try:
        strides = timm.create_model(name, features_only=True).feature_info.reduction()
        places = [strides.index(stride) for stride in _STRIDES]
    except (RuntimeError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"model.vision.backbone={name} gives no maps at strides 4, 8, 16 and 32 ({error}); take one that "
            "does, such as resnet50, convnext_tiny, swin_tiny_patch4_window7_224 or tf_efficientnet_lite0"
        ) from error
    settings: dict[str, Any] = {"features_only": True, "out_indices": places, "in_chans": channels}
    try:
        return timm.create_model(name, img_size=image_size, **settings)
    except TypeError:  # most convolutional ones take any size
        return timm.create_model(name, **settings)


def _statistics(name: str, what: str) -> tuple[float, ...]:
    content = timm.get_pretrained_cfg(name)
    found = getattr(content, what, None) if content is not None else None
    default = timm.data.IMAGENET_DEFAULT_MEAN if what == "mean" else timm.data.IMAGENET_DEFAULT_STD
    return tuple(found or default)


def _channels_last(backbone: Any, name: str, image_size: int) -> bool:
    """Whether the maps have their channels last; their sides must be those that the decoder expects."""
    first = next(backbone.parameters())
    channels, sides = backbone.feature_info.channels(), feature_sides(image_size, 4)
    was = backbone.training
    backbone.eval()
    weight = next(m.weight for m in backbone.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        try:
            maps = backbone(torch.zeros(1, weight.shape[1], image_size, image_size, device=first.device))
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"model.vision.backbone={name} takes no images of model.image_size={image_size} ({error})"
            ) from error
    backbone.train(was)
    shapes = [tuple(m.shape[1:]) for m in maps]
    if shapes == [(c, side, side) for c, side in zip(channels, sides, strict=True)]:
        return False
    if shapes == [(side, side, c) for c, side in zip(channels, sides, strict=True)]:
        return True
    raise UserError(
        f"model.vision.backbone={name} gives maps of {shapes} at model.image_size={image_size}, not of sides "
        f"{list(sides)}; take a multiple of 32"
    )
