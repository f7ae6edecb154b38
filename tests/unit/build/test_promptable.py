"""Masks by the real SAM and SAM 2 code of transformers, with small random weights on disk."""

import numpy as np
import pytest
import torch
import transformers

from pipelines.build import BuildConfig, build_store
from pipelines.build.sources.promptable import Segmenter, load_segmenter, weights_fingerprint
from pipelines.config.building import BoxConfig
from tests.unit.build.test_boxes import dota
from unigeoseg.errors import UserError


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam")
    torch.manual_seed(0)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 128,
            "patch_size": 16, "output_channels": 32, "mlp_dim": 64, "window_size": 4,
            "global_attn_indexes": [1], "num_pos_feats": 16,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "patch_size": 16},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2,
                             "iou_head_hidden_dim": 32},
    )  # fmt: skip
    transformers.SamModel(config).save_pretrained(folder)
    processor = transformers.SamImageProcessor(
        size={"longest_edge": 128}, pad_size={"height": 128, "width": 128}
    )
    transformers.SamProcessor(processor).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam2")
    torch.manual_seed(0)
    config = transformers.Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 16, "num_attention_heads": 1,
                "image_size": [128, 128], "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [16, 32, 64, 128],
                "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 4],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [128, 64, 32, 16],
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "patch_size": 16},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2,
                             "iou_head_hidden_dim": 32},
    )  # fmt: skip
    transformers.Sam2Model(config).save_pretrained(folder)
    processor = transformers.Sam2ImageProcessor(
        size={"height": 128, "width": 128}, mask_size={"height": 32, "width": 32}
    )
    transformers.Sam2Processor(processor).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_each_box_gets_the_mask_that_transformers_gives(kind, request):
    folder = request.getfixturevalue(kind)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    boxes = [(10.0, 12.0, 60.0, 70.0), (50.0, 5.0, 110.0, 80.0), (0.0, 0.0, 20.0, 20.0)]
    segmenter = Segmenter(folder, "cpu", 2)
    masks = segmenter.masks(pixels, boxes)
    assert segmenter.name == kind
    assert [m.shape for m in masks] == [(90, 120)] * 3 and all(m.dtype == bool for m in masks)
    model = (
        {"sam": transformers.SamModel, "sam2": transformers.Sam2Model}[kind].from_pretrained(folder).eval()
    )
    processor = {"sam": transformers.SamProcessor, "sam2": transformers.Sam2Processor}[kind].from_pretrained(
        folder
    )
    inputs = processor(images=pixels, input_boxes=[[list(b) for b in boxes]], return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs, multimask_output=False)
    sizes = [inputs["original_sizes"]] + ([inputs["reshaped_input_sizes"]] if kind == "sam" else [])
    (expected,) = processor.post_process_masks(output.pred_masks, *sizes)
    assert all(
        (mask == np.asarray(e[0], bool)).mean() > 0.999 for mask, e in zip(masks, expected, strict=True)
    )


def test_a_store_by_sam_is_recorded_and_repeatable(sam, tmp_path):
    dota(tmp_path / "in")
    config = BuildConfig(
        workers=0,
        boxes={"model": str(sam)},
        rules={"min_area": 0.0001, "max_area": 1.0, "min_component_px": 1},
    )
    shards = []
    for name in ("a", "b"):
        result = build_store("dota", tmp_path / "in", tmp_path / name, config, progress=False, preview=False)
        shards.append((tmp_path / name / "shards" / "train-00000.tar").read_bytes())
    assert shards[0] == shards[1]
    made = shards[0].count(b'"mask_from":"sam"') + shards[0].count(b'"mask_from":"polygon: empty model mask"')
    assert made == sum(result["samples"].values()) > 0
    noted = next(r for r in result["stages"] if r["name"] == "boxes")["noted"]
    assert sum(n for how, n in noted.items() if how.startswith("mask from")) == 2


def test_a_folder_that_is_no_sam(tmp_path, sam):
    with pytest.raises(UserError, match=r"no readable config\.json"):
        weights_fingerprint(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="is a 'bert' model"):
        weights_fingerprint(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    with pytest.raises(UserError, match="cannot be loaded"):
        load_segmenter(BoxConfig(model=str(tmp_path)))
    assert len(weights_fingerprint(str(sam))) == 64
