"""A model of a few ten thousand parameters and batches for it, made of random images."""

import numpy as np
import pytest
import torch

from unigeoseg.config import (
    ConnectorConfig,
    DecoderConfig,
    LanguageConfig,
    LossConfig,
    ModelConfig,
    TATEConfig,
    VisionConfig,
)
from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.batch import Batch
from unigeoseg.samples.collate import Collator
from unigeoseg.samples.prompts import interactive_sentence, template_texts
from unigeoseg.samples.sample import ImageGroup, Sample
from unigeoseg.samples.tokens import Tokenizer, train_tokenizer

POINTS = ((0.2, 0.3), (0.5, 0.6), (0.25, 0.4))
BOX = (0.1, 0.2, 0.5, 0.7)


def tiny_config(**changes) -> ModelConfig:
    values = {
        "image_size": 64,
        "system_prompt": "",
        "vision": VisionConfig(embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 4, 4), window=2, frozen=False),
        "connector": ConnectorConfig(stride=1),
        "tate": TATEConfig(dropout=0.0),
        "language": LanguageConfig(
            hidden_size=32, layers=1, heads=2, intermediate_size=64, max_positions=256
        ),
        "decoder": DecoderConfig(
            hidden=32, heads=2, pixel_layers=1, pixel_ffn=32, mask_layers=3, mask_ffn=32, query_width=32
        ),
        "loss": LossConfig(points=64),
    }
    return ModelConfig(**(values | changes))


def group(seed: int, count: int = 4, height: int = 64, width: int = 48) -> ImageGroup:
    """An image with a box, a three-point, a referring and a reasoning sample (the first ``count``)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[10:40, 8:30] = 1
    samples = (
        Sample(f"{seed}/b", "interactive", interactive_sentence(box=BOX), mask, box=BOX),
        Sample(f"{seed}/p", "interactive", interactive_sentence(points=POINTS), mask, points=POINTS),
        Sample(f"{seed}/f", "referring", "the large building near the road at the left", mask),
        Sample(f"{seed}/r", "reasoning", "Where would people find shelter?", mask, answer="It is a house."),
    )
    return ImageGroup(image, samples[:count])


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    texts = [*template_texts(""), *(s.instruction for s in group(0).samples)] * 2
    return train_tokenizer(texts, 320, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def config() -> ModelConfig:
    return tiny_config()


@pytest.fixture
def model(config, tokenizer) -> UniGeoSeg:
    torch.manual_seed(0)
    return UniGeoSeg(config, tokenizer.vocab_size)


@pytest.fixture
def collator(config, tokenizer) -> Collator:
    return Collator(tokenizer, config)


@pytest.fixture
def batch(collator) -> Batch:
    return collator([group(0), group(1, 3)])
