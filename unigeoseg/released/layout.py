"""Every key of the released state dict, and what of our model it holds; made from the configuration alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from unigeoseg.config import ModelConfig

#: How a released tensor holds ours:
#: ``same``; ``row`` is ours with a first dimension of one; ``heads`` are the three of ours, rows ordered
#: [head][q|k|v][width of a head]; ``thirds`` are the three of ours one after another; ``last_third`` is ours
#: after two thirds that compute nothing (queries and keys of an attention over one token); ``index`` is the
#: window's relative position index, which follows from its size; ``unused`` influences no output.
Kind = Literal["same", "row", "heads", "thirds", "last_third", "index", "unused"]


@dataclass(frozen=True)
class Entry:
    """One key of the released state dict.

    Attributes:
        released: its name.
        ours: names of our tensors in it, in order; empty for ``index`` and ``unused``.
        kind: how it holds them.
        shape: of an ``unused`` tensor.
    """

    released: str
    ours: tuple[str, ...] = ()
    kind: Kind = "same"
    shape: tuple[int, ...] = ()


_PAIR = ("weight", "bias")
_QUERIES = 100


def entries(config: ModelConfig) -> list[Entry]:
    """All keys for a configuration (958 at the paper's size)."""
    return [
        *_language(config),
        *_vision(config),
        *_text(config),
        *_pixel_decoder(config),
        *_mask_decoder(config),
        *_unused(config),
    ]


def _pairs(released: str, ours: str) -> Iterator[Entry]:
    for kind in _PAIR:
        yield Entry(f"{released}.{kind}", (f"{ours}.{kind}",))


def _language(config: ModelConfig) -> Iterator[Entry]:
    ours = "language.model.model"
    yield Entry("model.embed_tokens.weight", (f"{ours}.embed_tokens.weight",))
    for n in range(config.language.layers):
        there, here = f"model.layers.{n}", f"{ours}.layers.{n}"
        for kind in _PAIR:
            parts = tuple(f"{here}.self_attn.{p}_proj.{kind}" for p in "qkv")
            yield Entry(f"{there}.self_attn.query_key_value.{kind}", parts, "heads")
        for part in ("self_attn.dense", "mlp.fc1", "mlp.fc2", "input_layernorm"):
            yield from _pairs(f"{there}.{part}", f"{here}.{part}")
    yield from _pairs("model.final_layernorm", f"{ours}.final_layernorm")
    yield Entry("lm_head.weight", ("language.model.lm_head.weight",))


def _vision(config: ModelConfig) -> Iterator[Entry]:
    there, here = "model.vision_tower", "vision.swin"
    for part in ("patch_embed.proj", "patch_embed.norm"):
        yield from _pairs(f"{there}.{part}", f"{here}.{part}")
    for stage, depth in enumerate(config.vision.depths):
        for n in range(depth):
            block = f"layers.{stage}.blocks.{n}"
            table = f"{block}.attn.relative_position_bias_table"
            yield Entry(f"{there}.{table}", (f"{here}.{table}",))
            yield Entry(f"{there}.{block}.attn.relative_position_index", (), "index")
            for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
                yield from _pairs(f"{there}.{block}.{part}", f"{here}.{block}.{part}")
        if stage < 3:  # merging closes a stage there and opens the next one here
            merge, ours = f"{there}.layers.{stage}.downsample", f"{here}.layers.{stage + 1}.downsample"
            yield Entry(f"{merge}.reduction.weight", (f"{ours}.reduction.weight",))
            yield from _pairs(f"{merge}.norm", f"{ours}.norm")
        yield from _pairs(f"{there}.norm{stage}", f"vision.norms.{stage}")
    for part in ("proj1", "norm1", "proj2", "norm2", "fc"):
        yield from _pairs(f"model.mm_projector.{part}", f"connector.{part}")


def _text(config: ModelConfig) -> Iterator[Entry]:
    tate = "enhanced_reasoning_pooling"
    yield Entry(f"{tate}.multi_query", ("released_tate.queries",))
    yield from _pairs(f"{tate}.functional_proj", "released_tate.gate")
    yield from _pairs(f"{tate}.fusion", "released_tate.merge")
    yield from _pairs(f"{tate}.layer_norm", "released_tate.norm")
    yield from _pairs("intera_coord_project", "released_tate.proj")
    yield from _pairs("intera_fuse", "released_tate.fusion")
    yield Entry("ref_attn.query", ("pooling.query",), "row")
    yield Entry("global_latents", ("released_memory.memory",))
    yield from _pairs("origin_SEG_token_projector", "query.text")
    yield from _pairs("text_projector", "query.latent")
    yield from _pairs("local_project", "query.vision")
    yield from _pairs("SEG_token_projector", "query.out")
    layer = "d_layers.layers.0"
    yield from _pairs(f"{layer}.0.norm_media", "query.fusion.norm_vision")
    yield from _pairs(f"{layer}.0.norm_latents", "query.fusion.norm_latent")
    for part in ("to_q", "to_kv", "to_out"):
        yield Entry(f"{layer}.0.{part}.weight", (f"query.fusion.{part}.weight",))
    yield from _pairs(f"{layer}.1.0", "query.fusion.feed_forward.0")
    for number in (1, 3):
        yield Entry(f"{layer}.1.{number}.weight", (f"query.fusion.feed_forward.{number}.weight",))
    yield from _pairs("d_layers.norm", "query.fusion.norm_out")


def _pixel_decoder(config: ModelConfig) -> Iterator[Entry]:
    name = "pixel_decoder"
    for level in range(3):
        for step in range(2):
            yield from _pairs(f"{name}.input_proj.{level}.{step}", f"{name}.input_proj.{level}.{step}")
    yield Entry(f"{name}.transformer.level_embed", (f"{name}.level_embed",))
    for n in range(config.decoder.pixel_layers):
        there, here = f"{name}.transformer.encoder.layers.{n}", f"{name}.layers.{n}"
        for part in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"):
            yield from _pairs(f"{there}.self_attn.{part}", f"{here}.attention.{part}")
        for part in ("norm1", "linear1", "linear2", "norm2"):
            yield from _pairs(f"{there}.{part}", f"{here}.{part}")
    for there, here in (("adapter_1", "lateral"), ("layer_1", "output")):
        for step in range(2):
            yield from _pairs(f"{name}.{there}.{step}", f"{name}.{here}.{step}")
    yield from _pairs(f"{name}.mask_features", f"{name}.mask_features")


def _mask_decoder(config: ModelConfig) -> Iterator[Entry]:
    name = "predictor"
    for n in range(config.decoder.mask_layers):
        here = f"mask_decoder.layers.{n}"
        cross, own = (f"{name}.transformer_{kind}_attention_layers.{n}" for kind in ("cross", "self"))
        for kind in _PAIR:
            parts = tuple(f"{here}.cross.{p}_proj.{kind}" for p in "qkv")
            yield Entry(f"{cross}.multihead_attn.in_proj_{kind}", parts, "thirds")
            yield Entry(f"{own}.self_attn.in_proj_{kind}", (f"{here}.self_value.{kind}",), "last_third")
        yield from _pairs(f"{cross}.multihead_attn.out_proj", f"{here}.cross.out_proj")
        yield from _pairs(f"{cross}.norm", f"{here}.cross.norm")
        yield from _pairs(f"{own}.self_attn.out_proj", f"{here}.self_out")
        yield from _pairs(f"{own}.norm", f"{here}.self_norm")
        for part in ("linear1", "linear2", "norm"):
            yield from _pairs(f"{name}.transformer_ffn_layers.{n}.{part}", f"{here}.{part}")
    yield from _pairs(f"{name}.decoder_norm", "mask_decoder.norm")
    yield Entry(f"{name}.level_embed.weight", ("mask_decoder.level_embed",))
    for n in range(3):
        yield from _pairs(f"{name}.mask_embed.layers.{n}", f"mask_decoder.mask_embed.{2 * n}")


def _unused(config: ModelConfig) -> Iterator[Entry]:
    d, c = config.language.hidden_size, config.decoder.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "seg_query": (_QUERIES, d),
        "refer_pooling.query": (1, d),
        "refer_pooling.proj.weight": (d, d),
        "refer_pooling.proj.bias": (d,),
        "ref_attn.proj.weight": (d, d),
        "ref_attn.proj.bias": (d,),
        "reason_norm.weight": (d,),
        "reason_norm.bias": (d,),
        "task_embed.weight": (3, d),
        "global_projector.weight": (config.decoder.query_width, d),
        "global_projector.bias": (config.decoder.query_width,),
        "predictor.query_feat.weight": (_QUERIES, c),
        "predictor.query_embed.weight": (_QUERIES, c),
        "predictor.SEG_query_embed.weight": (_QUERIES + 1, c),
        "predictor.new_query_embed.weight": (1, c),
    }
    for head in ("SEG_proj", "CLASS_proj"):
        for layer in range(2):
            shapes[f"predictor.{head}.layers.{layer}.weight"] = (c, c)
            shapes[f"predictor.{head}.layers.{layer}.bias"] = (c,)
    for released, shape in shapes.items():
        yield Entry(released, (), "unused", shape)
