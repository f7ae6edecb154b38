"""The model configuration of a released checkpoint, read from its shapes and its ``config.json``."""

import math
from collections.abc import Mapping
from typing import Any

from unigeoseg.config import (
    ConnectorConfig,
    DecoderConfig,
    LanguageConfig,
    LKMConfig,
    ModelConfig,
    TATEConfig,
    VisionConfig,
)
from unigeoseg.errors import UserError

#: The only image projector of the released code that can be rebuilt exactly.
PROJECTOR = "SparseConv_1"
_DECODER_HEADS = 8  # of the mask decoder; the state dict does not show it
_POINT_NUMBERS = 12  # weights of one head in deformable attention: three levels of four points

Shape = tuple[int, ...]


def read_config(shapes: Mapping[str, Shape], content: Mapping[str, Any]) -> ModelConfig:
    """Our configuration for a released checkpoint.

    Args:
        shapes: of every tensor in its state dict.
        content: its ``config.json``; read are the language model's entries and ``mm_projector_type``.

    Raises:
        UserError: the image projector is another one, or an entry or a tensor that decides a size is absent.
    """
    check_projector(shapes, content)
    try:
        return _read(shapes, content)
    except KeyError as error:
        raise UserError(
            f"the checkpoint lacks {error}, which decides a size: it cannot be of the released model"
        ) from error


def check_projector(shapes: Mapping[str, Shape], content: Mapping[str, Any]) -> None:
    """Refuses image projectors other than "SparseConv_1", by name.

    Raises:
        UserError: names the projector that was found.
    """
    prefix = "model.mm_projector."
    keys = {name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)}
    named = content.get("mm_projector_type")
    found = named
    if "layer1" in keys:
        found = "swin_conv"
    elif "branch1" in keys:
        found = "MSCC"
    elif {"proj1", "norm1", "proj2", "norm2", "fc"} <= keys:
        found = PROJECTOR
    if found != PROJECTOR or named not in (None, PROJECTOR):
        raise UserError(
            f"image projector {found if found != PROJECTOR else named} is not supported: only {PROJECTOR} "
            "can be rebuilt exactly (mm_projector_type in config.json, or the keys under model.mm_projector)"
        )


def _read(shapes: Mapping[str, Shape], content: Mapping[str, Any]) -> ModelConfig:
    patch = "model.vision_tower.patch_embed.proj.weight"
    norms = [shapes[f"model.mm_projector.norm{n}.weight"] for n in (1, 2)]
    side = norms[0][1]
    stride = 2 if norms[1][1] != side else 1
    pixel, predictor = "pixel_decoder.transformer.encoder.layers", "predictor.transformer_ffn_layers"
    return ModelConfig(
        mode="released",
        image_size=int(content.get("image_size") or side * shapes[patch][2] * 8),
        vision=_vision(shapes, shapes[patch]),
        connector=ConnectorConfig(stride=stride),
        tate=TATEConfig(reasoning_queries=shapes["enhanced_reasoning_pooling.multi_query"][0]),
        language=_language(shapes, content),
        lkm=LKMConfig(slots=shapes["global_latents"][0]),
        decoder=DecoderConfig(
            hidden=shapes["pixel_decoder.mask_features.weight"][0],
            heads=_decoder_heads(shapes),
            pixel_layers=_count(shapes, pixel),
            pixel_ffn=shapes[f"{pixel}.0.linear1.weight"][0],
            mask_layers=_count(shapes, predictor),
            mask_ffn=shapes[f"{predictor}.0.linear1.weight"][0],
            query_width=shapes["text_projector.weight"][0],
        ),
    )


def _vision(shapes: Mapping[str, Shape], patch: Shape) -> VisionConfig:
    stages = [f"model.vision_tower.layers.{n}.blocks" for n in range(4)]
    tables = [shapes[f"{stage}.0.attn.relative_position_bias_table"] for stage in stages]
    depths = [_count(shapes, stage) for stage in stages]
    return VisionConfig(
        embed_dim=patch[0],
        patch=patch[2],
        depths=(depths[0], depths[1], depths[2], depths[3]),
        heads=(tables[0][1], tables[1][1], tables[2][1], tables[3][1]),
        window=(math.isqrt(tables[0][0]) + 1) // 2,
        padded_windows=True,
    )


def _language(shapes: Mapping[str, Shape], content: Mapping[str, Any]) -> LanguageConfig:
    activation = content.get("hidden_act", "gelu_new")
    if activation not in ("gelu_new", "gelu_pytorch_tanh"):
        raise UserError(f"hidden_act {activation} of the checkpoint is not Phi's gelu_new")
    if "num_attention_heads" not in content:
        raise UserError("config.json lacks num_attention_heads: no tensor shows how many heads Phi has")
    return LanguageConfig(
        hidden_size=shapes["model.embed_tokens.weight"][1],
        embedding_rows=shapes["model.embed_tokens.weight"][0],
        layers=_count(shapes, "model.layers"),
        heads=int(content["num_attention_heads"]),
        intermediate_size=shapes["model.layers.0.mlp.fc1.weight"][0],
        max_positions=int(content.get("max_position_embeddings", 2048)),
        rotary_share=float(content.get("partial_rotary_factor", 0.5)),
        rope_theta=float(content.get("rope_theta", 10000.0)),
        norm_eps=float(content.get("layer_norm_eps", 1e-5)),
        head_bias=False,
    )


def _decoder_heads(shapes: Mapping[str, Shape]) -> int:
    name = "pixel_decoder.transformer.encoder.layers.0.self_attn.attention_weights.bias"
    heads = shapes[name][0] // _POINT_NUMBERS
    if heads != _DECODER_HEADS:
        raise UserError(f"{heads} heads in the pixel decoder: the released decoders have {_DECODER_HEADS}")
    return heads


def _count(shapes: Mapping[str, Shape], prefix: str) -> int:
    """Number of consecutive members ``prefix.0``, ``prefix.1``, ..."""
    start = len(prefix) + 1
    numbers = {int(name[start:].split(".")[0]) for name in shapes if name.startswith(prefix + ".")}
    return max(numbers, default=-1) + 1
