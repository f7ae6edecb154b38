"""The released reference outputs, and a released-mode model of a few ten thousand parameters."""

import pytest
import torch

from tests.unit.model.conftest import tiny_config
from unigeoseg.build import build_model
from unigeoseg.config import ConnectorConfig, DecoderConfig, VisionConfig
from unigeoseg.released.fixture import Fixture
from unigeoseg.samples.released_tokenizer import ReleasedTokenizer, load_released_tokenizer
from unigeoseg.samples.tokens import train_tokenizer


@pytest.fixture(scope="session")
def fixture(shared) -> Fixture:
    return Fixture(shared / "fixtures" / "released_256")


@pytest.fixture
def config():
    return tiny_config(
        mode="released",
        vision=VisionConfig(
            embed_dim=16,
            depths=(1, 2, 1, 1),
            heads=(1, 2, 4, 4),
            window=4,
            frozen=False,
            padded_windows=True,
        ),
        connector=ConnectorConfig(stride=2),
        decoder=DecoderConfig(
            hidden=32, heads=8, pixel_layers=1, pixel_ffn=32, mask_layers=3, mask_ffn=32, query_width=32
        ),
    )


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> ReleasedTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["Sure, It is the large building near the road", "[INST] following"] * 2, 320, folder)
    return load_released_tokenizer(folder)


@pytest.fixture
def model(config, tokenizer):
    torch.manual_seed(0)
    return build_model(config, tokenizer.vocab_size + 7).eval()
