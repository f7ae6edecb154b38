"""A small randomly initialised Mask2Former of ``transformers``, and our model of the same sizes."""

import dataclasses

import pytest
import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from tests.unit.model.conftest import tiny_config
from unigeoseg.config import DecoderConfig, VisionConfig
from unigeoseg.model import UniGeoSeg

SIDE = 64
DECODER = DecoderConfig(
    hidden=32,
    heads=2,
    pixel_layers=2,
    pixel_ffn=48,
    mask_layers=3,
    mask_ffn=40,
    query_width=32,
    lateral_relu=False,
)
VISION = VisionConfig(embed_dim=16, depths=(2, 2, 2, 2), heads=(1, 2, 4, 4), window=2, padded_windows=True)


@pytest.fixture(scope="session")
def reference() -> Mask2FormerForUniversalSegmentation:
    """With every parameter away from its start value, so that no mix-up can hide."""
    torch.manual_seed(11)
    swin = SwinConfig(
        image_size=SIDE,
        embed_dim=VISION.embed_dim,
        depths=list(VISION.depths),
        num_heads=list(VISION.heads),
        window_size=VISION.window,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=DECODER.hidden,
        mask_feature_size=DECODER.hidden,
        hidden_dim=DECODER.hidden,
        encoder_feedforward_dim=DECODER.pixel_ffn,
        dim_feedforward=DECODER.mask_ffn,
        encoder_layers=DECODER.pixel_layers,
        decoder_layers=DECODER.mask_layers + 1,
        num_attention_heads=DECODER.heads,
        num_queries=1,
        dropout=0.0,
    )
    model = Mask2FormerForUniversalSegmentation(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture
def ours() -> UniGeoSeg:
    torch.manual_seed(5)
    return UniGeoSeg(tiny_config(image_size=SIDE, vision=VISION, decoder=DECODER), 300).eval()


def with_vision(**changes):
    return dataclasses.replace(VISION, **changes)
