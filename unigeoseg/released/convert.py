"""The released state dict to ours and back, without loss."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from timm.models.swin_transformer import get_relative_position_index
from torch import Tensor

from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError
from unigeoseg.released.layout import Entry, entries

_SHOWN = 8


@dataclass(frozen=True)
class Converted:
    """A released state dict in our names.

    Attributes:
        state: what our model loads.
        unused: released tensors (or their leading rows) that influence no output; with them,
            :func:`to_released` gives back every bit.
        buffers: names of released buffers that follow from the configuration.
    """

    state: dict[str, Tensor]
    unused: dict[str, Tensor]
    buffers: tuple[str, ...]


def from_released(released: Mapping[str, Tensor], config: ModelConfig) -> Converted:
    """Our state dict from a released one.

    Args:
        released: all tensors of a checkpoint; keys of ``unused`` tensors may be absent.
        config: as :func:`unigeoseg.released.config.read_config` finds it.

    Raises:
        UserError: keys are missing or unexpected (rotary tables apart, which follow from the configuration).
    """
    layout = entries(config)
    names = {entry.released for entry in layout}
    unexpected = [k for k in released if k not in names and not k.endswith("rotary_emb.inv_freq")]
    needed = [e.released for e in layout if e.kind not in ("unused", "index")]
    missing = [name for name in needed if name not in released]
    if missing or unexpected:
        raise UserError(
            f"this is not the released model of this configuration: {_listed('missing', missing)}, "
            f"{_listed('unexpected', unexpected)}"
        )
    state: dict[str, Tensor] = {}
    unused: dict[str, Tensor] = {}
    buffers = []
    for entry in layout:
        if entry.kind == "index":
            buffers.append(entry.released)
        elif entry.released in released:
            ours, rest = _unpack(entry, released[entry.released], config)
            state.update(zip(entry.ours, ours, strict=True))
            if rest is not None:
                unused[entry.released] = rest
    return Converted(state, unused, tuple(buffers))


def to_released(
    state: Mapping[str, Tensor], config: ModelConfig, unused: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The released state dict, in its order of keys by module.

    Args:
        state: our state dict.
        config: of our model.
        unused: as :func:`from_released` returned them; those that are absent become zeros.

    Raises:
        UserError: a tensor of ours is missing.
    """
    unused = unused or {}
    layout = entries(config)
    missing = [name for entry in layout for name in entry.ours if name not in state]
    if missing:
        raise UserError(f"not a model of `mode: released`: {_listed('missing', missing)}")
    index = get_relative_position_index(config.vision.window, config.vision.window)
    released: dict[str, Tensor] = {}
    for entry in layout:
        if entry.kind == "index":
            released[entry.released] = index.clone()
        elif entry.kind == "unused":
            kept = unused.get(entry.released)
            released[entry.released] = torch.zeros(entry.shape) if kept is None else kept
        else:
            ours = [state[name] for name in entry.ours]
            released[entry.released] = _pack(entry, ours, config, unused.get(entry.released))
    return released


def _unpack(entry: Entry, tensor: Tensor, config: ModelConfig) -> tuple[list[Tensor], Tensor | None]:
    """Our tensors in a released one, and what is left of it."""
    if entry.kind == "unused":
        return [], tensor
    if entry.kind == "row":
        return [tensor[0]], None
    if entry.kind == "heads":
        heads = config.language.heads
        split = tensor.unflatten(0, (heads, 3, -1))
        return [split[:, part].flatten(0, 1).contiguous() for part in range(3)], None
    if entry.kind == "thirds":
        return [part.contiguous() for part in tensor.chunk(3)], None
    if entry.kind == "last_third":
        first = 2 * len(tensor) // 3
        return [tensor[first:].contiguous()], tensor[:first].contiguous()
    return [tensor], None


def _pack(entry: Entry, ours: list[Tensor], config: ModelConfig, rest: Tensor | None) -> Tensor:
    """The inverse of :func:`_unpack`."""
    if entry.kind == "row":
        return ours[0][None]
    if entry.kind == "heads":
        heads = config.language.heads
        return torch.stack([t.unflatten(0, (heads, -1)) for t in ours], dim=1).flatten(0, 2)
    if entry.kind == "thirds":
        return torch.cat(ours)
    if entry.kind == "last_third":
        if rest is None:
            rest = torch.zeros(2 * len(ours[0]), *ours[0].shape[1:], dtype=ours[0].dtype)
        return torch.cat([rest.to(ours[0].device), ours[0]])
    return ours[0]


def _listed(what: str, names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{len(names)} keys {what}" + (f" ({shown})" if names else "")
