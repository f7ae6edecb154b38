"""Mask2Former weights into the vision encoder, the pixel decoder and the mask decoder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Mask2FormerForUniversalSegmentation

from unigeoseg.errors import UserError
from unigeoseg.weights.checkpoint_file import read_checkpoint
from unigeoseg.weights.names import ABSENT_BIASES, DETECTRON2, HUGGING_FACE, Spelling, rename
from unigeoseg.weights.report import LoadReport, load_named

PARTS = ("vision", "pixel_decoder", "mask_decoder")


def load_mask2former(
    model: nn.Module, path: str | Path, parts: Sequence[str] = PARTS, strict: bool = True
) -> LoadReport:
    """Starts ``model`` from a Mask2Former checkpoint with a Swin backbone.

    The two convolutions that have a bias in ours and none there get zero: with the group norm that follows,
    that is the same function. Class head and learned queries have no counterpart.

    Args:
        model: a :class:`~unigeoseg.model.UniGeoSeg`.
        path: a detectron2 ``.pkl``, a ``torch.save`` file or ``.safetensors`` of the same names, or a Hugging
            Face folder.
        parts: which of vision, pixel_decoder, mask_decoder to fill.
        strict: refuse missing and unexpected keys.

    Raises:
        UserError: the file cannot be read or is refused, is no Mask2Former, or does not fit the model.
    """
    tensors, spelling = _read(Path(path))
    renamed = rename(tensors, spelling)
    if not renamed.tensors:
        raise UserError(
            f"{path} holds no Mask2Former with a Swin backbone (first key: {next(iter(tensors))})"
        )
    chosen = {name: t for name, t in renamed.tensors.items() if name.split(".")[0] in parts}
    report = LoadReport(str(path), spelling.name, unexpected=renamed.unexpected, unused=renamed.unused)
    own = model.state_dict(keep_vars=True)
    biases = [
        name for name in ABSENT_BIASES if name in own and "pixel_decoder" in parts and name not in chosen
    ]
    load_named(model, chosen, report, [f"{part}." for part in parts], ABSENT_BIASES, strict)
    with torch.no_grad():
        for name in biases:
            own[name].zero_()
    report.notes += _notes(model, parts, biases)
    return report


def _notes(model: nn.Module, parts: Sequence[str], biases: list[str]) -> list[str]:
    config = getattr(model, "config", None)
    notes = [f"{len(biases)} convolution biases, which Mask2Former has not, are zero"] if biases else []
    if config is not None and "vision" in parts and not config.vision.padded_windows:
        notes.append(
            "Mask2Former pads its windows: model.vision.padded_windows=true computes what it was trained in"
        )
    if config is not None and "pixel_decoder" in parts and config.decoder.lateral_relu:
        notes.append(
            "Mask2Former has no ReLU after the lateral convolution (the released code has): "
            "model.decoder.lateral_relu=false leaves it out"
        )
    return notes


def _read(path: Path) -> tuple[dict[str, Tensor], Spelling]:
    if path.is_dir():
        return _hugging_face(path), HUGGING_FACE
    if not path.is_file():
        raise UserError(
            f"no Mask2Former weights at {path}; give a .pkl, .pth or .safetensors file, or a folder"
        )
    if path.suffix != ".safetensors":
        tensors = read_checkpoint(path)
    else:
        try:
            tensors = load_file(str(path))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is damaged or cut off ({error}); copy it again") from error
    if not tensors:
        raise UserError(f"{path} holds no tensors")
    return tensors, DETECTRON2


def _hugging_face(folder: Path) -> dict[str, Tensor]:
    """Through ``transformers``, which knows the older spellings of its own files."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json; give a Hugging Face Mask2Former folder")
    try:
        model, info = Mask2FormerForUniversalSegmentation.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # transformers, safetensors and torch each raise their own kinds
        raise UserError(f"{folder} is no loadable Hugging Face Mask2Former ({error})") from error
    absent = sorted(info["missing_keys"]) + sorted(str(item) for item in info.get("mismatched_keys", ()))
    if absent:
        raise UserError(f"{folder}: {len(absent)} weights are missing or of other sizes, {absent[:5]} first")
    return dict(model.state_dict())
