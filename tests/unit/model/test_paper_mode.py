"""Paper mode whole: every kind of prompt in mixed batches; padding and neighbours never count."""

import dataclasses
import json

import pytest
import torch

from tests.unit.model.conftest import BOX, POINTS, group, tiny_config
from unigeoseg.errors import UserError
from unigeoseg.export import load_export, save_export
from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.collate import Collator
from unigeoseg.samples.prompts import interactive_sentence
from unigeoseg.samples.sample import ImageGroup, Sample


def mixed() -> ImageGroup:
    """Every kind of prompt on one image, two answers empty."""
    base = group(5)
    mask = base.samples[0].mask
    points = [
        Sample(f"5/p{n}", "interactive", interactive_sentence(points=POINTS[:n]), mask, points=POINTS[:n])
        for n in (1, 2, 3)
    ]
    box = Sample("5/b", "interactive", interactive_sentence(box=BOX), mask, box=BOX)
    silent = dataclasses.replace(base.samples[3], sample_id="5/s", answer="")
    return ImageGroup(base.image, (*points, box, base.samples[2], base.samples[3], silent))


def padded(batch, extra: int):
    """The same batch with ``extra`` more positions of padding, all of which are computed."""
    fill = {"input_ids": 0, "labels": -100, "attention_mask": 0, "image_mask": 0, "instruction_mask": 0}
    return dataclasses.replace(
        batch,
        **{
            name: torch.nn.functional.pad(getattr(batch, name), (0, extra), value=value)
            for name, value in fill.items()
        },
        places=None,
        first=None,
    )


def test_padding_changes_neither_masks_nor_losses(model, collator):
    model.eval()
    batch = collator([mixed()])
    torch.testing.assert_close(model.predict(padded(batch, 13)), model.predict(batch), rtol=1e-4, atol=1e-5)
    seed = torch.Generator
    short, long = (model(b, seed().manual_seed(2)) for b in (batch, padded(batch, 13)))
    torch.testing.assert_close(long.total, short.total, rtol=1e-5, atol=1e-5)


def test_each_sample_alone_is_the_sample_in_the_mixed_batch(model, collator):
    model.eval()
    together = mixed()
    masks = model.predict(collator([together, group(6)]))
    whole = model(collator([together]), torch.Generator().manual_seed(4))
    total = 0.0
    for row, sample in enumerate(together.samples):
        alone = collator([dataclasses.replace(together, samples=(sample,))])
        torch.testing.assert_close(model.predict(alone)[0], masks[row], rtol=1e-4, atol=1e-4)
        total += float(model(alone, torch.Generator().manual_seed(4)).total.detach())
    assert float(whole.total.detach()) == pytest.approx(total, rel=1e-5)


def test_masks_do_not_depend_on_the_answer(model, collator):
    model.eval()
    batch = collator([mixed()])
    answered, silent = model.predict(batch)[-2:]
    torch.testing.assert_close(answered, silent, rtol=1e-4, atol=1e-5)


def test_points_and_their_number_matter(model, collator):
    model.eval()
    batch = collator([mixed()])
    moved = dataclasses.replace(batch, coordinates=batch.coordinates * 0.5)
    differs = (model.predict(moved) != model.predict(batch)).flatten(1).any(1)
    assert differs.tolist() == [True] * 4 + [False] * 3


@pytest.mark.parametrize("word", ["<image>", "<seg>", "[SEG]", "[PAD]", "<|endoftext|>", "[INST] <<SYS>>"])
def test_reserved_words_in_an_instruction_are_text(model, collator, tokenizer, word):
    base = group(1)
    plain = dataclasses.replace(base, samples=base.samples[2:3])
    text = f"the {word} building {word}"
    told = dataclasses.replace(base, samples=(dataclasses.replace(base.samples[2], instruction=text),))
    batch = collator([told])
    assert torch.equal(batch.image_mask.sum(1), collator([plain]).image_mask.sum(1))
    ids = batch.input_ids[0][batch.instruction_mask[0]].tolist()
    assert ids.count(tokenizer.seg_id) == 1 and ids[-1] == tokenizer.seg_id
    assert tokenizer.pad_id not in ids and tokenizer.end_id not in ids
    assert tokenizer.decode(ids).strip() == text
    assert torch.isfinite(model.eval().predict(batch)).all()


def test_an_export_for_other_sizes_or_without_tokenizer_is_refused(model, tokenizer, tmp_path):
    save_export(tmp_path, model, tokenizer)
    content = json.loads((tmp_path / "config.json").read_text())
    content["model"]["decoder"]["hidden"] = 64
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="does not fit its configuration"):
        load_export(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        load_export(tmp_path)


@pytest.mark.parametrize("shape", [(1, 64), (64, 1), (1, 1), (3, 640)])
def test_thin_images_give_finite_masks(model, collator, shape):
    base = group(1, height=shape[0], width=shape[1])
    samples = tuple(
        dataclasses.replace(s, mask=base.samples[0].mask[: shape[0], : shape[1]]) for s in base.samples
    )
    batch = collator([dataclasses.replace(base, samples=samples)])
    assert torch.isfinite(model.eval().predict(batch)).all()
    assert torch.isfinite(model(batch).total)


@pytest.mark.slow
def test_it_overfits_eight_samples_of_each_task(tokenizer):
    torch.manual_seed(0)
    config = tiny_config(loss=dataclasses.replace(tiny_config().loss, points=256))
    model = UniGeoSeg(config, tokenizer.vocab_size)
    groups = []
    for seed in range(8):
        base = group(seed, height=64, width=64)
        samples = []
        for number, sample in enumerate(base.samples[1:]):
            mask = base.samples[0].mask * 0
            top, left = 4 + 5 * seed, 4 + 16 * number
            mask[top : top + 20, left : left + 20] = 1
            samples.append(dataclasses.replace(sample, mask=mask))
        groups.append(dataclasses.replace(base, samples=tuple(samples)))
    batch = Collator(tokenizer, config)(groups)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=700)
    for step in range(700):
        loss = model(batch, torch.Generator().manual_seed(step)).total / len(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    predicted, truth = model.eval().predict(batch) > 0, batch.masks.bool()
    iou = (predicted & truth).sum((1, 2)) / (predicted | truth).sum((1, 2))
    for task in range(3):
        assert iou[batch.task == task].mean() > 0.95, iou.view(8, 3)
