"""Checkpoints that do not fit: refused with counts and names, and the model stays as it was."""

import dataclasses
import pickle

import pytest
import torch
from safetensors.torch import save_file

from tests.unit.model.conftest import tiny_config
from tests.unit.weights.conftest import DECODER, VISION
from tests.unit.weights.test_mask2former import detectron2_arrays
from unigeoseg.errors import UserError
from unigeoseg.export import save_export
from unigeoseg.model import UniGeoSeg
from unigeoseg.weights.export_file import load_export_weights
from unigeoseg.weights.mask2former import load_mask2former


@pytest.fixture
def arrays(reference):
    return detectron2_arrays(reference)


@pytest.fixture
def save(tmp_path):
    def write(arrays):
        path = tmp_path / "model_final.pkl"
        path.write_bytes(pickle.dumps({"model": arrays}))
        return path

    return write


def snapshot(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


def unchanged(model, before):
    return all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_missing_and_unexpected_keys_are_counted_and_refused(arrays, save, ours):
    before = snapshot(ours)
    del arrays["backbone.norm0.weight"]
    arrays["sem_seg_head.something.else"] = arrays["backbone.norm0.bias"]
    path = save(arrays)
    with pytest.raises(UserError, match=r"1 are missing \(vision\.norms\.0\.weight\), 1 are unexpected"):
        load_mask2former(ours, path)
    assert unchanged(ours, before)
    report = load_mask2former(ours, path, strict=False)
    assert report.plain()["counts"] == {
        "loaded": len(report.loaded),
        "missing": 3,
        "unexpected": 1,
        "unused": len(report.unused),
    }


def test_other_depths_are_refused(arrays, save):
    deeper = dataclasses.replace(DECODER, mask_layers=4)
    model = UniGeoSeg(tiny_config(vision=VISION, decoder=deeper), 300)
    with pytest.raises(UserError, match=r"are missing \(mask_decoder\.layers\.3"):
        load_mask2former(model, save(arrays))


def test_other_widths_are_refused_even_when_not_strict(arrays, save):
    model = UniGeoSeg(tiny_config(vision=dataclasses.replace(VISION, embed_dim=32), decoder=DECODER), 300)
    before = snapshot(model)
    with pytest.raises(UserError, match=r"other sizes.*checkpoint \(16, 3, 4, 4\), model \(32, 3, 4, 4\)"):
        load_mask2former(model, save(arrays), strict=False)
    assert unchanged(model, before)


def test_only_the_named_parts_are_filled(arrays, save, ours):
    before = snapshot(ours)
    report = load_mask2former(ours, save(arrays), parts=["vision"])
    assert report.loaded and all(name.startswith("vision.") for name in report.loaded)
    changed = {n.split(".")[0] for n, t in ours.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {"vision"}


def test_a_checkpoint_of_something_else_is_refused(tmp_path, ours):
    path = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.ones(2)}, str(path))
    with pytest.raises(UserError, match="no Mask2Former with a Swin backbone"):
        load_mask2former(ours, path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"other\.safetensors is damaged"):
        load_mask2former(ours, path)
    for absent in (tmp_path / "none.pkl", tmp_path):
        with pytest.raises(UserError, match="give a"):
            load_mask2former(ours, absent)


def test_an_export_starts_another_model(ours, tmp_path):
    from unigeoseg.samples.prompts import template_texts
    from unigeoseg.samples.tokens import train_tokenizer

    tokenizer = train_tokenizer(template_texts("") * 2, 300, tmp_path / "tokenizer")
    save_export(tmp_path / "export", ours, tokenizer)
    torch.manual_seed(77)
    other = UniGeoSeg(ours.config, 300)
    report = load_export_weights(other, tmp_path / "export")
    assert len(report.loaded) == len(other.state_dict()) and not report.missing
    assert unchanged(other, ours.state_dict())
    with pytest.raises(UserError, match="other sizes"):
        load_export_weights(UniGeoSeg(ours.config, 310), tmp_path / "export")
    weights = tmp_path / "export" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])
    with pytest.raises(UserError, match="cut off"):
        load_export_weights(other, tmp_path / "export")
    with pytest.raises(UserError, match="not an export"):
        load_export_weights(other, tmp_path)
