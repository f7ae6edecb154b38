"""Any timm backbone as the encoder: its maps are timm's own, and its weights come from files."""

import dataclasses

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.unit.model.conftest import tiny_config
from unigeoseg.build import build_model
from unigeoseg.config import VisionConfig
from unigeoseg.errors import UserError
from unigeoseg.modules.backbone import BackboneEncoder
from unigeoseg.weights.backbone_file import load_backbone

LITE = "tf_efficientnet_lite0"


def _config(name=LITE, **changes):
    return VisionConfig(backbone=name, **{"frozen": False, **changes})


def _images(size=64):
    return torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


def _model(**changes):
    torch.manual_seed(0)
    return build_model(tiny_config(vision=_config(**changes)), 320)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", LITE])
def test_maps_are_those_of_timm_on_pixels_normalised_as_it_does(name):
    encoder = BackboneEncoder(_config(name), 64).eval()
    maps = encoder(_images())
    assert [m.shape[1:] for m in maps] == [
        (c, s, s) for c, s in zip(encoder.widths, (16, 8, 4, 2), strict=True)
    ]
    content = timm.get_pretrained_cfg(name)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (content.mean, content.std))
    expected = encoder.backbone((_images().float() / 255 - mean) / std)
    for ours, theirs in zip(maps, expected, strict=True):
        theirs = theirs if theirs.shape == ours.shape else theirs.permute(0, 3, 1, 2)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "beside"), [("resnet18", False), (LITE, True)])
def test_depthwise_convolutions_get_their_channels_side_by_side_and_give_them_in_order(name, beside):
    encoder, seen = BackboneEncoder(_config(name), 64), []
    encoder.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert all(m.is_contiguous() for m in encoder(_images()))
    assert [p.is_contiguous(memory_format=torch.channels_last) for p in seen] == [beside]


def test_the_whole_model_trains_on_it_and_norms_keep_their_statistics(batch):
    model = _model().train()
    before = {n: b.clone() for n, b in model.vision.named_buffers() if "running" in n}
    assert before
    losses = model(batch, torch.Generator().manual_seed(0))
    losses.total.backward()
    assert all(p.grad is not None for p in model.vision.parameters())
    after = dict(model.vision.named_buffers())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    model.enable_activation_checkpointing()
    again = model(batch, torch.Generator().manual_seed(0))
    assert float(again.total.detach()) == pytest.approx(float(losses.total.detach()), rel=1e-5)


def test_frozen_it_has_no_gradient_and_stays_in_eval_mode(batch):
    model = _model(frozen=True).train()
    assert not model.vision.training
    model(batch, torch.Generator().manual_seed(0)).total.backward()
    assert all(p.grad is None for p in model.vision.parameters())


def test_weights_under_timms_names_with_wrapper_and_classifier(tmp_path):
    source = timm.create_model(LITE)
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    model = _model()
    report = load_backbone(model, tmp_path)
    assert report.form == "timm" and not report.missing and not report.unexpected
    assert {"classifier.weight", "conv_head.weight"} <= set(report.unused)
    for name, value in model.vision.backbone.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, source.state_dict()[name]), name


def test_names_of_the_lite_package_are_those_of_its_blocks_in_order(tmp_path):
    """The same function: renamed there and back, every map is what timm computes."""
    source = timm.create_model(LITE)
    blocks = [b for stage in source.blocks for b in stage]
    state = {"_conv_stem.weight": source.conv_stem.weight, "_fc.bias": source.classifier.bias}
    state |= {f"_bn0.{n}": v for n, v in source.bn1.state_dict().items()}
    for number, block in enumerate(blocks):
        full = hasattr(block, "conv_pwl")
        layers = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
        layers |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
        if not full:
            layers = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
        for ours, theirs in layers.items():
            for kind, value in getattr(block, ours).state_dict().items():
                state[f"_blocks.{number}.{theirs}.{kind}"] = value
    torch.save(
        {k: v.detach() for k, v in state.items()}, tmp_path / "lite.pth", _use_new_zipfile_serialization=False
    )
    model = _model()
    report = load_backbone(model, tmp_path / "lite.pth")
    assert report.form == "efficientnet-lite-pytorch" and report.unused == ["head._fc.bias"]
    whole = timm.create_model(LITE, features_only=True, out_indices=[1, 2, 3, 4])
    whole.load_state_dict(source.state_dict(), strict=False)
    pixels = (_images().float() - model.vision.mean) / model.vision.std
    for ours, theirs in zip(model.vision.eval()(_images()), whole.eval()(pixels), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_coordinate_channels_start_without_effect(tmp_path):
    save_file(timm.create_model(LITE, features_only=True).state_dict(), tmp_path / "w.safetensors")
    plain, placed = _model(), _model(coordinate_channels=True)
    load_backbone(plain, tmp_path / "w.safetensors")
    report = load_backbone(placed, tmp_path / "w.safetensors")
    assert "2 coordinate channels" in report.notes[0]
    for a, b in zip(plain.vision.eval()(_images()), placed.vision.eval()(_images()), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "timm has no such model; near it: resnet18"),
        ("vit_tiny_patch16_224", "gives no maps at strides 4, 8, 16 and 32"),
    ],
)
def test_unknown_and_unfit_backbones_are_refused_with_others_to_take(name, message):
    with pytest.raises(UserError, match=message):
        BackboneEncoder(_config(name), 64)


def test_the_patch_of_swin_does_not_go_with_a_backbone():
    with pytest.raises(UserError, match=r"model\.vision\.patch=8.*leave it at 4"):
        _model(patch=8)


def test_released_mode_has_its_own_encoder():
    with pytest.raises(UserError, match=r"set model\.mode=paper"):
        build_model(tiny_config(vision=_config(), mode="released"), 320)


def test_weights_that_do_not_fit_are_refused(tmp_path, model):
    with pytest.raises(UserError, match=r"takes init\.mask2former"):
        load_backbone(model, tmp_path)
    other = _model()
    with pytest.raises(UserError, match="no such file"):
        load_backbone(other, tmp_path / "absent.pth")
    with pytest.raises(UserError, match="one file of weights, found none"):
        load_backbone(other, tmp_path)
    part = dict(list(timm.create_model(LITE).state_dict().items())[:20])
    save_file(part, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="does not fit the model"):
        load_backbone(other, tmp_path / "w.safetensors")
    save_file(timm.create_model("tf_efficientnet_lite2").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="other sizes"):
        load_backbone(other, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_backbone(other, tmp_path / "w.safetensors")


def test_it_is_built_again_from_an_exports_configuration(batch):
    model = _model()
    again = build_model(type(model.config).from_dict(model.config.to_dict()), 320)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval().predict(batch), model.eval().predict(batch))
    assert dataclasses.asdict(again.config) == dataclasses.asdict(model.config)
