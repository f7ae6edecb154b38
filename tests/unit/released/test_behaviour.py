"""Released mode in use: collation, training step, prediction, export."""

import dataclasses

import pytest
import torch

from tests.unit.model.conftest import group
from unigeoseg.build import build_model
from unigeoseg.export import load_export, save_export
from unigeoseg.released.model import template_mask
from unigeoseg.samples.collate import Collator


def test_trains_predicts_and_is_exported(model, config, tokenizer, tmp_path):
    batch = Collator(tokenizer, config)([group(0), group(1)])
    model.train()
    losses = model(batch, torch.Generator().manual_seed(0))
    losses.total.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert torch.isfinite(losses.total)
    model.eval()
    end = "<|endoftext|>"  # padding by the end token, which only tokenizer_config.json tells
    padded_by_end = type(tokenizer)(tokenizer._inner, {"pad_token": end, "eos_token": end})
    save_export(tmp_path, model, padded_by_end)
    loaded, found = load_export(tmp_path)
    assert found.pad_id == found.end_id == tokenizer.end_id != tokenizer.pad_id
    assert torch.equal(loaded.predict(batch), model.predict(batch))


@pytest.mark.parametrize("size", [100, 72])
def test_any_image_size(config, tokenizer, size):
    config = dataclasses.replace(config, image_size=size)
    batch = Collator(tokenizer, config)([group(0)])
    model = build_model(config, tokenizer.vocab_size).eval()
    assert batch.image_mask.sum(1).tolist() == [config.image_tokens] * 4
    assert model.predict(batch).shape == (4, size, size)
    assert model.connector.norm1.normalized_shape[1] == -(-size // 32)


def test_template_lies_between_image_and_instruction(config, tokenizer):
    batch = Collator(tokenizer, config)([group(0)])
    words = template_mask(batch)
    text = tokenizer.decode(batch.input_ids[0][words[0]].tolist())
    assert text == ", Please doing Reasoning Segmentation according to the following instruction:\n"
    assert not (words & (batch.image_mask | batch.instruction_mask)).any()


def test_coordinates_ignore_the_letterbox(config, tokenizer):
    batch = Collator(tokenizer, config)([group(0, height=64, width=32)])
    assert torch.equal(batch.coordinates[0, :4], torch.tensor([0.1, 0.2, 0.5, 0.7]))


def test_first_sample_decides_the_memory_unless_each_its_own(config, tokenizer):
    torch.manual_seed(0)
    first = build_model(config, tokenizer.vocab_size).eval()
    own = build_model(
        dataclasses.replace(config, lkm=dataclasses.replace(config.lkm, task_of="own")), tokenizer.vocab_size
    ).eval()
    own.load_state_dict(first.state_dict())
    collate = Collator(tokenizer, config)
    together = collate([group(0)])  # an interactive sample comes first
    alone = collate([dataclasses.replace(group(0), samples=group(0).samples[2:3])])
    expected = first.predict(alone)[0]
    assert torch.allclose(own.predict(together)[2], expected, atol=1e-4)
    assert not torch.allclose(first.predict(together)[2], expected, atol=1e-4)


def test_end_token_as_padding_leaves_the_answer_alone_supervised(config, tokenizer):
    end = "<|endoftext|>"
    tokenizer = type(tokenizer)(tokenizer._inner, {"pad_token": end, "eos_token": end})
    batch = Collator(tokenizer, config)([group(0)])
    supervised = batch.input_ids[3][batch.labels[3] >= 0].tolist()
    assert supervised == [*tokenizer.encode("It is a house."), tokenizer.seg_id]
    hidden = batch.token_mask & ~batch.attention_mask
    assert hidden.sum(1).tolist() == [1] * 4
    assert set(batch.input_ids[hidden].tolist()) == {tokenizer.end_id}


def test_padding_token_leaves_the_reply_supervised(config, tokenizer):
    batch = Collator(tokenizer, config)([group(0)])
    text = tokenizer.decode(batch.input_ids[3][batch.labels[3] >= 0].tolist())
    assert text.replace("[SEG]", "").strip() == "Sure, It is . \nIt is a house.."[:-1] + "."
    assert torch.equal(batch.attention_mask, batch.token_mask)
