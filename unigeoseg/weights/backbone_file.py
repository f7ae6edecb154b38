"""Weights of a timm backbone into the vision encoder: timm's names, or efficientnet-lite-pytorch's."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unigeoseg.errors import UserError
from unigeoseg.model import UniGeoSeg
from unigeoseg.modules.backbone import BackboneEncoder
from unigeoseg.weights.checkpoint_file import read_checkpoint
from unigeoseg.weights.report import LoadReport, load_named

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pth.tar")
_WRAPPERS = re.compile(r"^(?:module\.|model\.|backbone\.|encoder\.)+")
#: Parts of a classifier that a backbone has no use for.
_HEADS = re.compile(r"^(?:head|fc|classifier|conv_head|norm_head|bn2|norm|norm_pre|global_pool)\b")
#: Blocks of efficientnet-lite-pytorch, and the places of their layers in timm's two kinds of blocks.
_LITE_BLOCK = re.compile(r"^_blocks\.(\d+)\._(\w+)\.(\w+)$")
_LITE_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
_LITE_HEAD = re.compile(r"^_(?:conv_head|bn1|fc)\.")
_LITE_FULL = {
    "expand_conv": "conv_pw",
    "bn0": "bn1",
    "depthwise_conv": "conv_dw",
    "bn1": "bn2",
    "project_conv": "conv_pwl",
    "bn2": "bn3",
}
_LITE_FIRST = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}


def load_backbone(model: UniGeoSeg, path: str | Path, strict: bool = True) -> LoadReport:
    """Starts the vision encoder from weights of the same timm model.

    With coordinate channels the first layer has two inputs more than the file's; they start at zero, so that
    the encoder begins as it was trained.

    Args:
        model: whose ``model.vision.backbone`` is set.
        path: ``.safetensors`` or a ``torch.save`` file, or a folder with one.
        strict: refuse missing and unexpected keys.

    Raises:
        UserError: the model has no timm backbone, the file cannot be read, or does not fit.
    """
    encoder = model.vision
    if not isinstance(encoder, BackboneEncoder):
        raise UserError(
            f"init.vision={path}: the encoder is the project's own Swin, which takes init.mask2former or "
            "init.model; set model.vision.backbone to a timm model to give it weights of its own"
        )
    own = encoder.backbone.state_dict()
    file = _file(Path(path).expanduser())
    tensors, form = _spelled({_WRAPPERS.sub("", k): v for k, v in _read(file).items()}, own)
    heads = [name for name in tensors if name not in own and _HEADS.match(name)]
    report = LoadReport(str(path), form, unused=heads)
    fitted = {
        f"vision.backbone.{name}": _widened(value, own.get(name), report)
        for name, value in tensors.items()
        if name not in heads
    }
    counters = [f"vision.backbone.{n}" for n in own if n.endswith("num_batches_tracked")]
    return load_named(model, fitted, report, ["vision.backbone."], counters, strict)


def _file(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"init.vision={path}: there is no such file or folder")
    if path.is_file():
        return path
    found = sorted(p for p in path.iterdir() if p.name.endswith(_SUFFIXES))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise UserError(f"init.vision={path}: a folder needs one file of weights, found {names}; name it")
    return found[0]


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"init.vision={path} cannot be read as weights ({error})") from error


def _spelled(tensors: Mapping[str, Tensor], own: Iterable[str]) -> tuple[dict[str, Tensor], str]:
    """The tensors under timm's names, and how they were spelled."""
    if not any(name.startswith("_blocks.") for name in tensors):
        return dict(tensors), "timm"
    blocks = sorted(
        {m[0] for name in own if (m := re.match(r"blocks\.(\d+)\.(\d+)\.", name))},
        key=lambda block: [int(n) for n in block.split(".")[1:3]],
    )
    names = set(own)
    renamed = {}
    for name, value in tensors.items():
        layer, _, kind = name.rpartition(".")
        if match := _LITE_BLOCK.match(name):
            block = blocks[int(match[1])] if int(match[1]) < len(blocks) else f"blocks.{match[1]}."
            places = _LITE_FULL if f"{block}conv_pwl.weight" in names else _LITE_FIRST
            renamed[f"{block}{places.get(match[2], match[2])}.{match[3]}"] = value
        elif layer in _LITE_STEM:
            renamed[f"{_LITE_STEM[layer]}.{kind}"] = value
        else:
            renamed["head." + name if _LITE_HEAD.match(name) else name] = value
    return renamed, "efficientnet-lite-pytorch"


def _widened(value: Tensor, target: Tensor | None, report: LoadReport) -> Tensor:
    """A first layer's weight with zeros for the inputs that only ours has."""
    if target is None or value.dim() != 4 or value.shape[0] != target.shape[0] or value.shape[1] != 3:
        return value
    extra = target.shape[1] - 3
    if extra <= 0 or value.shape[2:] != target.shape[2:]:
        return value
    report.notes.append(f"{extra} coordinate channels of the first layer start at zero")
    return torch.cat([value, value.new_zeros(len(value), extra, *value.shape[2:])], dim=1)
