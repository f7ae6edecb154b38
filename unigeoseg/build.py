"""The model that a configuration asks for."""

from unigeoseg.collector import collector_at_rest
from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError

with collector_at_rest():  # these bring transformers and timm
    from unigeoseg.baselines.psalm import PsalmLike
    from unigeoseg.baselines.segearth import SegEarthLike
    from unigeoseg.model import UniGeoSeg
    from unigeoseg.released.model import ReleasedUniGeoSeg

_KINDS: dict[str, type[UniGeoSeg]] = {"none": UniGeoSeg, "psalm": PsalmLike, "segearth": SegEarthLike}


def build_model(config: ModelConfig, vocab_size: int) -> UniGeoSeg:
    """A model with fresh weights, in the mode of ``config``.

    Args:
        config: shapes, switches and mode.
        vocab_size: number of token ids of the tokenizer (or rows of a checkpoint's embedding).

    Raises:
        UserError: a baseline or a backbone in released mode, or an image size that the encoder cannot take.
    """
    if config.vision.backbone and config.mode == "released":
        raise UserError(
            f"model.vision.backbone={config.vision.backbone}: the released code has a Swin of its own; "
            "set model.mode=paper"
        )
    if config.vision.backbone and config.vision.patch != 4:
        raise UserError(
            f"model.vision.patch={config.vision.patch}: a backbone by name gives maps from stride 4 on; "
            "leave it at 4"
        )
    _check_image_size(config)
    baseline = config.baseline.kind
    if config.mode == "released" and baseline != "none":
        raise UserError(
            f"model.baseline.kind={baseline} is no part of the released code: set model.mode=paper"
        )
    kind = ReleasedUniGeoSeg if config.mode == "released" else _KINDS[baseline]
    return kind(config, max(vocab_size, config.language.embedding_rows))


def _check_image_size(config: ModelConfig) -> None:
    size, patch = config.image_size, config.vision.patch
    padded = config.vision.padded_windows or config.mode == "released"
    if size <= patch * 8:  # a map of one position has nothing to normalise over
        raise UserError(
            f"model.image_size={size} leaves a single position of the encoder's coarsest map; "
            f"the least is {patch * 9}"
        )
    if size % patch and not padded:
        raise UserError(
            f"model.image_size={size} is no multiple of the encoder's patch of {patch} pixels; take "
            f"{size - size % patch} or {size - size % patch + patch}, or set model.vision.padded_windows=true"
        )
