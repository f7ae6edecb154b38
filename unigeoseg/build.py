"""The model that a configuration asks for."""

from unigeoseg.baselines.psalm import PsalmLike
from unigeoseg.baselines.segearth import SegEarthLike
from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError
from unigeoseg.model import UniGeoSeg
from unigeoseg.released.model import ReleasedUniGeoSeg

_KINDS: dict[str, type[UniGeoSeg]] = {"none": UniGeoSeg, "psalm": PsalmLike, "segearth": SegEarthLike}


def build_model(config: ModelConfig, vocab_size: int) -> UniGeoSeg:
    """A model with fresh weights, in the mode of ``config``.

    Args:
        config: shapes, switches and mode.
        vocab_size: number of token ids of the tokenizer (or rows of a checkpoint's embedding).

    Raises:
        UserError: a baseline in released mode, or an image too small for the encoder.
    """
    least = config.vision.patch * 8  # a single position of res5, the coarsest map
    if config.image_size < least:
        raise UserError(
            f"model.image_size={config.image_size} is smaller than one position of the encoder's coarsest "
            f"map; the least is {least}"
        )
    baseline = config.baseline.kind
    if config.mode == "released" and baseline != "none":
        raise UserError(
            f"model.baseline.kind={baseline} is no part of the released code: set model.mode=paper"
        )
    kind = ReleasedUniGeoSeg if config.mode == "released" else _KINDS[baseline]
    return kind(config, max(vocab_size, config.language.embedding_rows))
