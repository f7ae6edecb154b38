"""Mask2Former weights in both spellings: the loaded parts compute what the reference modules compute."""

import copy
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.unit.weights.conftest import DECODER, SIDE
from unigeoseg.weights.mask2former import load_mask2former

PIXEL = r"model\.pixel_level_module"
TRANSFORMER = r"model\.transformer_module"
LAYER = rf"^{TRANSFORMER}\.decoder\.layers\.(\d+)"
HEAD = "sem_seg_head.predictor"
DECODER_OUT = "sem_seg_head.pixel_decoder"
#: transformers' names to detectron2's, as its checkpoints spell them.
TO_DETECTRON2 = (
    (rf"^{PIXEL}\.encoder\.swin\.embeddings\.patch_embeddings\.projection", "backbone.patch_embed.proj"),
    (rf"^{PIXEL}\.encoder\.swin\.embeddings\.norm", "backbone.patch_embed.norm"),
    (rf"^{PIXEL}\.encoder\.swin\.encoder\.", "backbone."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.o_proj", "attn.proj"),
    (r"attention\.relative_position_bias\.", "attn."),
    (rf"^{PIXEL}\.decoder\.input_projections", "sem_seg_head.pixel_decoder.input_proj"),
    (rf"^{PIXEL}\.decoder\.level_embed", f"{DECODER_OUT}.transformer.level_embed"),
    (rf"^{PIXEL}\.decoder\.encoder", f"{DECODER_OUT}.transformer.encoder"),
    (r"(encoder\.layers\.\d+)\.self_attn_layer_norm", r"\1.norm1"),
    (r"(pixel_decoder.*)\.final_layer_norm", r"\1.norm2"),
    (r"(pixel_decoder.*)\.fc([12])", r"\1.linear\2"),
    (rf"^{PIXEL}\.decoder\.mask_projection", "sem_seg_head.pixel_decoder.mask_features"),
    (rf"^{PIXEL}\.decoder\.(adapter_1|layer_1)\.0", r"sem_seg_head.pixel_decoder.\1"),
    (rf"^{PIXEL}\.decoder\.(adapter_1|layer_1)\.1", r"sem_seg_head.pixel_decoder.\1.norm"),
    (rf"^{TRANSFORMER}\.queries_features", f"{HEAD}.query_feat"),
    (rf"^{TRANSFORMER}\.queries_embedder", f"{HEAD}.query_embed"),
    (rf"^{TRANSFORMER}\.level_embed", f"{HEAD}.level_embed"),
    (rf"^{TRANSFORMER}\.decoder\.layernorm", f"{HEAD}.decoder_norm"),
    (rf"^{TRANSFORMER}\.decoder\.mask_predictor\.mask_embedder\.(\d)\.0", rf"{HEAD}.mask_embed.layers.\1"),
    (rf"{LAYER}\.self_attn_layer_norm", rf"{HEAD}.transformer_self_attention_layers.\1.norm"),
    (rf"{LAYER}\.self_attn", rf"{HEAD}.transformer_self_attention_layers.\1.self_attn"),
    (rf"{LAYER}\.cross_attn_layer_norm", rf"{HEAD}.transformer_cross_attention_layers.\1.norm"),
    (rf"{LAYER}\.cross_attn", rf"{HEAD}.transformer_cross_attention_layers.\1.multihead_attn"),
    (rf"{LAYER}\.fc([12])", rf"{HEAD}.transformer_ffn_layers.\1.linear\2"),
    (rf"{LAYER}\.final_layer_norm", rf"{HEAD}.transformer_ffn_layers.\1.norm"),
    (r"^class_predictor", f"{HEAD}.class_embed"),
)  # fmt: skip


def detectron2_arrays(reference):
    """The reference's weights as a detectron2 file holds them: joined projections, NumPy arrays."""
    state = {k: v.numpy() for k, v in reference.state_dict().items()}
    arrays = {}
    for key in [k for k in state if re.search(r"(?<!cross_attn\.)q_proj", k)]:
        parts = [state.pop(key.replace("q_proj", f"{p}_proj")) for p in "qkv"]
        joined = np.concatenate(parts)
        arrays[
            key.replace("attention.q_proj", "attn.qkv")
            if "attention.q" in key
            else key.replace("q_proj.", "in_proj_")
        ] = joined
    arrays |= state
    for n in range(4):
        for w in ("weight", "bias"):
            arrays[f"backbone.norm{n}.{w}"] = arrays.pop(
                f"model.pixel_level_module.encoder.hidden_states_norms.stage{n + 1}.{w}"
            )
            arrays.pop(f"model.pixel_level_module.encoder.swin.layernorm.{w}", None)
    renamed = {}
    for key, value in arrays.items():
        name = key
        for pattern, to in TO_DETECTRON2:
            name = re.sub(pattern, to, name)
        renamed[name] = value
    renamed["backbone.layers.0.blocks.0.attn.relative_position_index"] = np.zeros((4, 4), np.int64)
    return renamed


@pytest.fixture(params=["hugging_face", "detectron2_pickle", "detectron2_safetensors"])
def checkpoint(request, reference, tmp_path):
    if request.param == "hugging_face":
        reference.save_pretrained(tmp_path / "hf")
        return tmp_path / "hf"
    arrays = detectron2_arrays(reference)
    if request.param == "detectron2_pickle":
        path = tmp_path / "model_final.pkl"
        content = {"model": arrays, "__author__": "Third Party", "matching_heuristics": True}
        path.write_bytes(pickle.dumps(content, protocol=2))
        return path
    path = tmp_path / "model.safetensors"
    save_file({k: torch.from_numpy(v.copy()) for k, v in arrays.items()}, str(path))
    return path


@torch.no_grad()
def reference_outputs(reference, images):
    """Features, mask features, levels and all mask predictions for one query without position code."""
    level = reference.model.pixel_level_module
    pixels = (images.float() - torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)) / torch.tensor(
        [58.395, 57.12, 57.375]
    ).view(1, 3, 1, 1)
    features = list(level.encoder(pixels).feature_maps)
    decoded = level.decoder(features)
    query = torch.randn(len(images), DECODER.hidden, generator=torch.Generator().manual_seed(3))
    module = reference.model.transformer_module
    module.queries_embedder.weight.zero_()
    module.queries_features = SimpleNamespace(weight=query[:1])
    masks = [
        torch.stack(
            _masks(
                module,
                [f[i : i + 1] for f in decoded.multi_scale_features],
                decoded.mask_features[i : i + 1],
                query[i],
            )
        )
        for i in range(len(images))
    ]
    return features, decoded.mask_features, list(decoded.multi_scale_features), query, torch.cat(masks, 1)


def _masks(module, levels, mask_features, query):
    module.queries_features = SimpleNamespace(weight=query[None])
    output = module(levels, mask_features, output_hidden_states=True)
    return [m[:, 0] for m in output.masks_queries_logits]


def test_loaded_parts_compute_what_the_reference_computes(checkpoint, reference, ours):
    report = load_mask2former(ours, checkpoint)
    assert not report.unexpected
    assert report.missing == ["pixel_decoder.lateral.0.bias", "pixel_decoder.output.0.bias"]
    assert report.plain()["counts"]["loaded"] == len(report.loaded) > 150
    assert any("class" in name for name in report.unused)
    assert "missing" in report.summary()
    images = torch.randint(0, 255, (2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )
    reference = copy.deepcopy(reference)
    del reference.model.transformer_module._modules["queries_features"]
    reference.model.transformer_module.queries_features = None
    features, mask_features, levels, query, masks = reference_outputs(reference, images)
    with torch.no_grad():
        mine = ours.vision(images)
        my_mask_features, my_levels = ours.pixel_decoder(mine)
        my_masks = ours.mask_decoder(query, my_mask_features, my_levels, torch.arange(2))
    for got, want in zip(
        [*mine, my_mask_features, *my_levels], [*features, mask_features, *levels], strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(my_masks, masks, rtol=1e-4, atol=1e-4)
