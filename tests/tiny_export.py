"""An export of a model with a few ten thousand random parameters."""

from pathlib import Path

import torch

from unigeoseg.config import ConnectorConfig, DecoderConfig, LanguageConfig, ModelConfig, VisionConfig
from unigeoseg.export import save_export
from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.prompts import template_texts
from unigeoseg.samples.tokens import train_tokenizer


def write_export(
    folder: Path, size: int = 64, seed: int = 0, max_positions: int = 256, threshold: float = 0.5
) -> Path:
    config = ModelConfig(
        image_size=size,
        threshold=threshold,
        vision=VisionConfig(embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=2, frozen=False),
        connector=ConnectorConfig(stride=1),
        language=LanguageConfig(
            hidden_size=32, layers=1, heads=2, intermediate_size=64, max_positions=max_positions
        ),
        decoder=DecoderConfig(
            hidden=32, heads=2, pixel_layers=1, pixel_ffn=32, mask_layers=2, mask_ffn=32, query_width=32
        ),
        system_prompt="",
    )
    texts = ["the interactive block of the picture", "x0,y0=[0.123,0.456]"]
    tokenizer = train_tokenizer(texts, 300, folder, template_texts(""))
    torch.manual_seed(seed)
    save_export(folder, UniGeoSeg(config, tokenizer.vocab_size), tokenizer)
    return folder
