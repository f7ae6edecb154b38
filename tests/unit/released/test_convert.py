"""The released state dict to ours and back; checkpoints on disk."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from pipelines.train.checkpoints.model_export import convert_model
from unigeoseg.build import build_model
from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError
from unigeoseg.export import load_export, save_export
from unigeoseg.released.config import check_projector, read_config
from unigeoseg.released.convert import from_released, to_released
from unigeoseg.released.folder import load_released, save_released, write_config
from unigeoseg.released.layout import entries


def test_layout_has_the_keys_of_the_fixture(fixture):
    layout = {e.released: e for e in entries(fixture.config)}
    keys = fixture.spec["keys"]
    assert set(layout) == set(keys)
    buffers = {name for name, entry in layout.items() if entry.kind == "index"}
    assert buffers == set(keys) - set(fixture.spec["params"])
    unused = {name for name, entry in layout.items() if entry.kind == "unused"}
    assert unused == set(fixture.spec["params_without_gradient"])
    assert all(list(layout[name].shape) == keys[name]["shape"] for name in unused)


def test_fixture_goes_to_ours_and_back_bit_for_bit(fixture):
    weights = fixture.weights()
    converted = from_released(weights, fixture.config)
    back = to_released(converted.state, fixture.config, converted.unused)
    assert set(back) - set(weights) == set(converted.buffers)
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())
    for name in converted.buffers:
        assert list(back[name].shape) == fixture.spec["keys"][name]["shape"]
        assert int(back[name].sum()) == fixture.spec["keys"][name].get("sum", int(back[name].sum()))


def test_fused_rows_are_ordered_head_first(fixture):
    weights, config = fixture.weights(), fixture.config
    name = "model.layers.0.self_attn.query_key_value.weight"
    fused, width = weights[name], config.language.hidden_size // config.language.heads
    state = from_released(weights, config).state
    for head in range(config.language.heads):
        for part, letter in enumerate("qkv"):
            rows = fused[(3 * head + part) * width :][:width]
            ours = state[f"language.model.model.layers.0.self_attn.{letter}_proj.weight"]
            assert torch.equal(ours[head * width :][:width], rows)


def test_paper_size_has_958_keys_and_the_counted_parameters():
    config = ModelConfig(mode="released")
    layout = entries(config)
    assert len(layout) == len({e.released for e in layout}) == 958
    with torch.device("meta"):
        model = build_model(config, 51200)
    state = model.state_dict()
    assert {name for e in layout for name in e.ours} == set(state)
    count = sum(t.numel() for t in state.values())
    unused = sum(torch.Size(e.shape).numel() for e in layout if e.kind == "unused")
    # Queries and keys of nine self-attentions over one token, which ours does not have.
    halves = 9 * 2 * 256 * 257
    assert count + unused + halves == 1_622_658_616
    assert sum(p.numel() for p in model.vision.parameters()) == 86_880_376


def test_config_is_read_from_shapes(model, config):
    released = to_released(model.state_dict(), config)
    shapes = {name: tuple(t.shape) for name, t in released.items()}
    read = read_config(shapes, write_config(model.config, len(released["model.embed_tokens.weight"])))
    for part in ("image_size", "connector", "decoder", "lkm", "mode"):
        assert getattr(read, part) == getattr(model.config, part), part
    assert dataclasses.replace(read.vision, frozen=False) == model.config.vision
    assert dataclasses.replace(read.language, embedding_rows=0, initializer_range=0.02) == (
        dataclasses.replace(model.config.language, initializer_range=0.02)
    )


@pytest.mark.parametrize(
    ("keys", "named", "found"),
    [
        (["layer1.0.conv1.weight"], "swin_conv", "swin_conv"),
        (["branch1.0.weight"], None, "MSCC"),
        (["proj1.weight", "norm1.weight", "proj2.weight", "norm2.weight", "fc.weight"], "conv", "conv"),
    ],
)
def test_other_projectors_are_refused_by_name(keys, named, found):
    shapes = {f"model.mm_projector.{key}": (1,) for key in keys}
    with pytest.raises(UserError, match=f"image projector {found} is not supported"):
        check_projector(shapes, {"mm_projector_type": named} if named else {})


def test_missing_and_unexpected_keys_are_named(model, config):
    released = to_released(model.state_dict(), config)
    released["model.other"] = released.pop("text_projector.bias")
    with pytest.raises(UserError, match=r"missing \(text_projector.bias\).*unexpected \(model.other\)"):
        from_released(released, config)


@pytest.fixture
def checkpoint(tmp_path, model, config, tokenizer):
    unused = {e.released: torch.randn(e.shape) for e in entries(config) if e.kind == "unused"}
    written = save_released(tmp_path / "there", model.state_dict(), config, tokenizer, unused)
    assert written == {"keys": len(entries(config)), "zeros": 2 * config.decoder.mask_layers}
    return tmp_path / "there"


def test_checkpoint_comes_back_through_our_export(checkpoint, model, config, tmp_path, tokenizer):
    loaded, found, _ = load_released(checkpoint)
    state = model.state_dict()
    assert set(loaded.state_dict()) == set(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    ids = [(t.pad_id, t.seg_id, t.end_id) for t in (found, tokenizer)]
    assert ids[0] == ids[1]
    ours = convert_model(checkpoint, "unigeoseg", tmp_path / "ours")
    assert "seg_query" in ours["unused"]
    back = convert_model(tmp_path / "ours", "released", tmp_path / "back")
    first, second = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "back"))
    halves = 2 * config.decoder.mask_layers  # the fresh model has no queries and keys of self-attention
    assert (ours["zeros"], back["zeros"]) == (0, 0) and len(ours["unused"]) == len(
        entries(config)[-23:]
    ) + halves
    assert back["tensors"] == len(first) and set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (checkpoint / "config.json").read_text() == (tmp_path / "back" / "config.json").read_text()


def test_load_export_reads_a_checkpoint(checkpoint):
    loaded, tokenizer = load_export(checkpoint)
    assert loaded.config.mode == "released"
    assert loaded.language.model.get_input_embeddings().num_embeddings == tokenizer.vocab_size + 7


def test_parts_and_pickles_are_read_and_damage_is_refused(checkpoint):
    whole = checkpoint / "model.safetensors"
    tensors = {key: t.clone() for key, t in load_file(whole).items()}  # not mapped from the file
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="truncated or damaged"):
        load_released(checkpoint)
    whole.unlink()
    with pytest.raises(UserError, match="holds no weights"):
        load_released(checkpoint)
    names = sorted(tensors)
    parts = {"a.bin": names[:50], "b.bin": names[50:]}
    for file, keys in parts.items():
        torch.save({key: tensors[key] for key in keys}, checkpoint / file)
    weight_map = {key: file for file, keys in parts.items() for key in keys}
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    _, _, converted = load_released(checkpoint)
    assert len(converted.unused) > 20
    (checkpoint / "b.bin").unlink()
    with pytest.raises(UserError, match="1 of 2 weight files are missing"):
        load_released(checkpoint)


def test_paper_mode_has_no_released_layout(tmp_path, tokenizer, config):
    paper = build_model(dataclasses.replace(config, mode="paper"), tokenizer.vocab_size)
    save_export(tmp_path / "paper", paper, tokenizer)
    with pytest.raises(UserError, match="mode paper cannot be written as a released checkpoint"):
        convert_model(tmp_path / "paper", "released", tmp_path / "out")
