"""The model that a configuration asks for."""

from unigeoseg.config import ModelConfig
from unigeoseg.model import UniGeoSeg
from unigeoseg.released.model import ReleasedUniGeoSeg


def build_model(config: ModelConfig, vocab_size: int) -> UniGeoSeg:
    """A model with fresh weights, in the mode of ``config``.

    Args:
        config: shapes, switches and mode.
        vocab_size: number of token ids of the tokenizer (or rows of a checkpoint's embedding).
    """
    kind = ReleasedUniGeoSeg if config.mode == "released" else UniGeoSeg
    return kind(config, max(vocab_size, config.language.embedding_rows))
