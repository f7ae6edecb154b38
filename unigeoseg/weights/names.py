"""Names of Mask2Former's parameters, in detectron2's and in Hugging Face's spelling, to ours.

Each rule is a pattern over a whole key and our name for it. A pattern may name one of ``q``, ``k``, ``v``
through ``part``: such tensors are joined in that order. ``split`` rules cut a joined projection in three.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_W = r"\.(?P<w>weight|bias)"
_PARTS = ("q", "k", "v")
#: Lateral and output convolution: these have no bias in Mask2Former and one in ours.
ABSENT_BIASES = ("pixel_decoder.lateral.0.bias", "pixel_decoder.output.0.bias")


@dataclass(frozen=True)
class Spelling:
    """One spelling of the names.

    Attributes:
        rules: pattern to our name (``{w}`` is weight or bias; ``stage``, ``block``, ``n`` are numbers).
        joined: as ``rules``, for tensors that ours joins; the pattern has a group ``part``.
        split: as ``rules``, for tensors that ours keeps apart; our name has ``{part}``.
        single: as ``split``, but only the value third is kept (self-attention of a single query).
        unused: keys that have no counterpart.
    """

    name: str
    rules: tuple[tuple[str, str], ...]
    joined: tuple[tuple[str, str], ...]
    split: tuple[tuple[str, str], ...]
    single: tuple[tuple[str, str], ...]
    unused: str


_D_PIXEL = r"sem_seg_head\.pixel_decoder"
_D_MASK = r"sem_seg_head\.predictor"
_D_BLOCK = r"backbone\.layers\.(?P<stage>\d+)\.blocks\.(?P<block>\d+)"
_BLOCK = "vision.swin.layers.{stage}.blocks.{block}"
_ENCODER = "pixel_decoder.layers.{n}"
_LAYER = "mask_decoder.layers.{n}"

DETECTRON2 = Spelling(
    name="Mask2Former, detectron2",
    rules=(
        (rf"backbone\.patch_embed\.(?P<x>proj|norm){_W}", "vision.swin.patch_embed.{x}.{w}"),
        (rf"{_D_BLOCK}\.(?P<x>norm[12]|mlp\.fc[12]|attn\.proj|attn\.qkv){_W}", _BLOCK + ".{x}.{w}"),
        (rf"{_D_BLOCK}\.attn\.relative_position_bias_table", _BLOCK + ".attn.relative_position_bias_table"),
        (
            rf"backbone\.layers\.(?P<below>\d+)\.downsample\.(?P<x>reduction|norm){_W}",
            "vision.swin.layers.{above}.downsample.{x}.{w}",
        ),
        (rf"backbone\.norm(?P<n>\d){_W}", "vision.norms.{n}.{w}"),
        (rf"{_D_PIXEL}\.input_proj\.(?P<n>\d)\.(?P<x>[01]){_W}", "pixel_decoder.input_proj.{n}.{x}.{w}"),
        (rf"{_D_PIXEL}\.transformer\.level_embed", "pixel_decoder.level_embed"),
        (
            rf"{_D_PIXEL}\.transformer\.encoder\.layers\.(?P<n>\d+)\.self_attn\.(?P<x>\w+){_W}",
            _ENCODER + ".attention.{x}.{w}",
        ),
        (
            rf"{_D_PIXEL}\.transformer\.encoder\.layers\.(?P<n>\d+)\.(?P<x>norm[12]|linear[12]){_W}",
            _ENCODER + ".{x}.{w}",
        ),
        (rf"{_D_PIXEL}\.mask_features{_W}", "pixel_decoder.mask_features.{w}"),
        (rf"{_D_PIXEL}\.adapter_1{_W}", "pixel_decoder.lateral.0.{w}"),
        (rf"{_D_PIXEL}\.adapter_1\.norm{_W}", "pixel_decoder.lateral.1.{w}"),
        (rf"{_D_PIXEL}\.layer_1{_W}", "pixel_decoder.output.0.{w}"),
        (rf"{_D_PIXEL}\.layer_1\.norm{_W}", "pixel_decoder.output.1.{w}"),
        (
            rf"{_D_MASK}\.transformer_cross_attention_layers\.(?P<n>\d+)\.multihead_attn\.out_proj{_W}",
            _LAYER + ".cross.out_proj.{w}",
        ),
        (rf"{_D_MASK}\.transformer_cross_attention_layers\.(?P<n>\d+)\.norm{_W}", _LAYER + ".cross.norm.{w}"),
        (
            rf"{_D_MASK}\.transformer_self_attention_layers\.(?P<n>\d+)\.self_attn\.out_proj{_W}",
            _LAYER + ".self_out.{w}",
        ),
        (rf"{_D_MASK}\.transformer_self_attention_layers\.(?P<n>\d+)\.norm{_W}", _LAYER + ".self_norm.{w}"),
        (rf"{_D_MASK}\.transformer_ffn_layers\.(?P<n>\d+)\.(?P<x>linear[12]|norm){_W}", _LAYER + ".{x}.{w}"),
        (rf"{_D_MASK}\.level_embed\.weight", "mask_decoder.level_embed"),
        (rf"{_D_MASK}\.decoder_norm{_W}", "mask_decoder.norm.{w}"),
        (rf"{_D_MASK}\.mask_embed\.layers\.(?P<third>[012]){_W}", "mask_decoder.mask_embed.{double}.{w}"),
    ),
    joined=(),
    split=(
        (
            rf"{_D_MASK}\.transformer_cross_attention_layers\.(?P<n>\d+)\.multihead_attn\.in_proj_(?P<w>\w+)",
            _LAYER + ".cross.{part}_proj.{w}",
        ),
    ),
    single=(
        (
            rf"{_D_MASK}\.transformer_self_attention_layers\.(?P<n>\d+)\.self_attn\.in_proj_(?P<w>\w+)",
            _LAYER + ".self_value.{w}",
        ),
    ),
    unused=r"(backbone\..*\.(relative_position_index|attn_mask)|criterion\..*|pixel_(mean|std)"
    rf"|{_D_MASK}\.(query_feat|query_embed|class_embed|static_query)\b.*)",
)

_H_SWIN = r"model\.pixel_level_module\.encoder(?:\.swin)?"
_H_BLOCK = rf"{_H_SWIN}\.encoder\.layers\.(?P<stage>\d+)\.blocks\.(?P<block>\d+)"
_H_PIXEL = r"model\.pixel_level_module\.decoder"
_H_ENCODER = rf"{_H_PIXEL}\.encoder\.layers\.(?P<n>\d+)"
_H_MASK = r"model\.transformer_module\.decoder"
_H_LAYER = rf"{_H_MASK}\.layers\.(?P<n>\d+)"

HUGGING_FACE = Spelling(
    name="Mask2Former, Hugging Face",
    rules=(
        (rf"{_H_SWIN}\.embeddings\.patch_embeddings\.projection{_W}", "vision.swin.patch_embed.proj.{w}"),
        (rf"{_H_SWIN}\.embeddings\.norm{_W}", "vision.swin.patch_embed.norm.{w}"),
        (rf"{_H_BLOCK}\.layernorm_before{_W}", _BLOCK + ".norm1.{w}"),
        (rf"{_H_BLOCK}\.layernorm_after{_W}", _BLOCK + ".norm2.{w}"),
        (rf"{_H_BLOCK}\.attention\.o_proj{_W}", _BLOCK + ".attn.proj.{w}"),
        (rf"{_H_BLOCK}\.(?P<x>mlp\.fc[12]){_W}", _BLOCK + ".{x}.{w}"),
        (
            rf"{_H_BLOCK}\.attention\.relative_position_bias\.relative_position_bias_table",
            _BLOCK + ".attn.relative_position_bias_table",
        ),
        (
            rf"{_H_SWIN}\.encoder\.layers\.(?P<below>\d+)\.downsample\.(?P<x>reduction|norm){_W}",
            "vision.swin.layers.{above}.downsample.{x}.{w}",
        ),
        (rf"{_H_SWIN}\.hidden_states_norms\.stage(?P<first>\d){_W}", "vision.norms.{zero}.{w}"),
        (
            rf"{_H_PIXEL}\.input_projections\.(?P<n>\d)\.(?P<x>[01]){_W}",
            "pixel_decoder.input_proj.{n}.{x}.{w}",
        ),
        (rf"{_H_PIXEL}\.level_embed", "pixel_decoder.level_embed"),
        (rf"{_H_ENCODER}\.self_attn\.(?P<x>\w+){_W}", _ENCODER + ".attention.{x}.{w}"),
        (rf"{_H_ENCODER}\.self_attn_layer_norm{_W}", _ENCODER + ".norm1.{w}"),
        (rf"{_H_ENCODER}\.final_layer_norm{_W}", _ENCODER + ".norm2.{w}"),
        (rf"{_H_ENCODER}\.fc(?P<x>[12]){_W}", _ENCODER + ".linear{x}.{w}"),
        (rf"{_H_PIXEL}\.mask_projection{_W}", "pixel_decoder.mask_features.{w}"),
        (rf"{_H_PIXEL}\.adapter_1\.(?P<x>[01]){_W}", "pixel_decoder.lateral.{x}.{w}"),
        (rf"{_H_PIXEL}\.layer_1\.(?P<x>[01]){_W}", "pixel_decoder.output.{x}.{w}"),
        (rf"{_H_LAYER}\.cross_attn\.out_proj{_W}", _LAYER + ".cross.out_proj.{w}"),
        (rf"{_H_LAYER}\.cross_attn_layer_norm{_W}", _LAYER + ".cross.norm.{w}"),
        (rf"{_H_LAYER}\.self_attn\.v_proj{_W}", _LAYER + ".self_value.{w}"),
        (rf"{_H_LAYER}\.self_attn\.out_proj{_W}", _LAYER + ".self_out.{w}"),
        (rf"{_H_LAYER}\.self_attn_layer_norm{_W}", _LAYER + ".self_norm.{w}"),
        (rf"{_H_LAYER}\.fc(?P<x>[12]){_W}", _LAYER + ".linear{x}.{w}"),
        (rf"{_H_LAYER}\.final_layer_norm{_W}", _LAYER + ".norm.{w}"),
        (r"model\.transformer_module\.level_embed\.weight", "mask_decoder.level_embed"),
        (rf"{_H_MASK}\.layernorm{_W}", "mask_decoder.norm.{w}"),
        (
            rf"{_H_MASK}\.mask_predictor\.mask_embedder\.(?P<third>[012])\.0{_W}",
            "mask_decoder.mask_embed.{double}.{w}",
        ),
    ),
    joined=((rf"{_H_BLOCK}\.attention\.(?P<part>[qkv])_proj{_W}", _BLOCK + ".attn.qkv.{w}"),),
    split=((rf"{_H_LAYER}\.cross_attn\.in_proj_(?P<w>\w+)", _LAYER + ".cross.{part}_proj.{w}"),),
    single=(),
    unused=rf"({_H_SWIN}\..*relative_position_index|{_H_SWIN}\.layernorm\..*|class_predictor\..*|criterion\..*"
    rf"|model\.transformer_module\.queries_\w+\..*|{_H_LAYER}\.self_attn\.[qk]_proj\..*)",
)


@dataclass
class Renamed:
    """Tensors under our names, and the keys that are none of the model's."""

    tensors: dict[str, Tensor]
    unexpected: list[str]
    unused: list[str]


def rename(tensors: Mapping[str, Tensor], spelling: Spelling) -> Renamed:
    """Applies a spelling's rules to a whole checkpoint."""
    found = Renamed({}, [], [])
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        if ours := _match(spelling.rules, key):
            found.tensors[ours] = tensor
        elif ours := _match(spelling.joined, key):
            parts[ours][_part(spelling.joined, key)] = tensor
        elif ours := _match(spelling.split, key):
            for part, piece in zip(_PARTS, tensor.chunk(3), strict=True):
                found.tensors[ours.replace("{part}", part)] = piece
        elif ours := _match(spelling.single, key):
            found.tensors[ours] = tensor.chunk(3)[2]
        else:
            (found.unused if re.fullmatch(spelling.unused, key) else found.unexpected).append(key)
    for ours, pieces in parts.items():
        if len(pieces) == len(_PARTS):
            found.tensors[ours] = torch.cat([pieces[part] for part in _PARTS])
    return found


def _match(rules: tuple[tuple[str, str], ...], key: str) -> str | None:
    for pattern, ours in rules:
        if match := re.fullmatch(pattern, key):
            groups = match.groupdict()
            numbers = {name: int(groups[name]) for name in ("below", "first", "third") if name in groups}
            return ours.format(
                **{"part": "{part}", **groups},
                above=numbers.get("below", 0) + 1,  # ours merges at a stage's start, theirs at the end
                zero=numbers.get("first", 1) - 1,
                double=2 * numbers.get("third", 0),  # ReLUs stand between
            )
    return None


def _part(rules: tuple[tuple[str, str], ...], key: str) -> str:
    return next(match["part"] for pattern, _ in rules if (match := re.fullmatch(pattern, key)))
