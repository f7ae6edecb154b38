"""Prompts, tokens, letterbox and collation."""

import numpy as np
import pytest
from tokenizers import Tokenizer as _Tokenizer
from tokenizers import models

from tests.unit.model.conftest import BOX, POINTS, group
from unigeoseg.errors import UserError
from unigeoseg.samples.collate import IGNORE, BadSample
from unigeoseg.samples.letterbox import Letterbox, letterbox_image, letterbox_mask, unletterbox
from unigeoseg.samples.prompts import interactive_sentence, parse_coordinates
from unigeoseg.samples.sample import ImageGroup, Sample
from unigeoseg.samples.tokens import load_tokenizer


def test_interactive_sentences_parse_back():
    assert parse_coordinates(interactive_sentence(box=BOX)) == (BOX, None)
    assert parse_coordinates(interactive_sentence(points=POINTS)) == (None, POINTS)
    assert parse_coordinates("the ship near (0.1, 0.2)") == (None, None)


@pytest.mark.parametrize(
    ("box", "points", "words"),
    [
        ((0.1, 0.2, 1.5, 0.7), None, "outside"),
        (None, ((float("nan"), 0.1),), "outside"),
        (None, ((0.1, 0.1),) * 4, "4 points"),
        ((0.5, 0.2, 0.5, 0.7), None, "empty"),
        (None, None, "either"),
    ],
)
def test_bad_prompts_are_refused_with_a_remedy(box, points, words):
    with pytest.raises(UserError, match=words):
        interactive_sentence(box, points)


def test_reserved_tokens_in_user_text_are_data(tokenizer):
    ids = tokenizer.encode("[SEG] and <|endoftext|>")
    assert tokenizer.seg_id not in ids
    assert tokenizer.end_id not in ids
    assert tokenizer.decode(ids) == "[SEG] and <|endoftext|>"


def test_a_saved_tokenizer_loads_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.encode("the large [PAD] building") == tokenizer.encode("the large [PAD] building")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "nothing")


def test_collate_lays_out_the_sequence(collator, tokenizer, config):
    batch = collator([group(1), group(2, 1)], positions=[7, 9])
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.image_index.tolist() == [0, 0, 0, 0, 1]
    assert batch.positions == [7, 9]
    assert (batch.image_mask.sum(1) == config.image_tokens).all()
    for row, sample in enumerate([*group(1).samples, group(2, 1).samples[0]]):
        instruction = batch.input_ids[row][batch.instruction_mask[row]].tolist()
        assert instruction[-1] == tokenizer.seg_id
        assert tokenizer.decode(instruction).strip() == sample.instruction
        labels = batch.labels[row]
        assert (labels[labels != IGNORE] == batch.input_ids[row][labels != IGNORE]).all()
        assert labels[batch.attention_mask[row]][-1] == tokenizer.end_id
        assert tokenizer.decode(labels[labels != IGNORE].tolist()).endswith(sample.answer)


def test_coordinates_move_with_the_letterbox(collator):
    batch = collator([group(1, height=64, width=32)])
    np.testing.assert_allclose(batch.coordinates[0, :4], [0.3, 0.2, 0.5, 0.7], atol=1e-6)
    assert batch.coordinate_mask[0].tolist() == [True] * 4 + [False, False, True]
    assert batch.coordinate_mask[1].tolist() == [True] * 6 + [False]
    assert not batch.coordinate_mask[2].any()


@pytest.mark.parametrize("shape", [(64, 64), (50, 100), (100, 50), (1, 90), (37, 64)])
def test_letterbox_keeps_geometry_and_undoes(shape):
    mask = np.zeros(shape, np.uint8)
    mask[: max(1, shape[0] // 2)] = 1
    square = letterbox_mask(mask, 64)
    box = Letterbox.fit(*shape, 64)
    assert square.shape == (64, 64)
    assert box.inner_height == 64 or box.inner_width == 64
    outside = square.copy()
    outside[box.rows, box.columns] = 0
    assert not outside.any()
    back = unletterbox(square, *shape)
    assert back.shape == shape
    assert (back != mask).mean() <= 0.05
    assert letterbox_image(np.ones((*shape, 3), np.uint8), 64).shape == (64, 64, 3)


def test_unusable_samples_say_why(collator):
    image = np.zeros((20, 30, 3), np.uint8)
    ok = np.ones((20, 30), np.uint8)
    cases = {
        "mask_size": Sample("a", "referring", "x", np.ones((20, 31), np.uint8)),
        "empty_instruction": Sample("a", "referring", "  ", ok),
        "too_long": Sample("a", "referring", "word " * 600, ok),
        "coordinates": Sample("a", "interactive", "x", ok, points=((0.5, 1.5),)),
    }
    for reason, sample in cases.items():
        with pytest.raises(BadSample) as caught:
            collator.check(sample, image)
        assert caught.value.reason == reason
    collator.check(group(0).samples[0], group(0).image)
    assert len(collator([ImageGroup(image, (Sample("a", "referring", "x", None),))])) == 1


def test_a_token_that_was_added_but_not_as_special_is_no_token_in_text(tmp_path):
    inner = _Tokenizer(models.BPE(vocab={"a": 0, "[": 1, "]": 2, "S": 3, "E": 4, "G": 5, " ": 6}, merges=[]))
    inner.add_tokens(["[SEG]", "aaa"])
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.seg_id == 7
    assert tokenizer.encode("[SEG]") == [1, 3, 4, 5, 2]
    assert tokenizer.encode("aaa") == [8]  # no reserved word: the tokenizer's own affair


def test_smooth_letterbox_averages_areas_and_keeps_every_region():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (256, 256, 3), dtype=np.uint8)
    means = image.reshape(64, 4, 64, 4, 3).astype(np.float64).mean((1, 3))
    np.testing.assert_allclose(letterbox_image(image, 64, smooth=True), means, atol=0.51)
    mask = (rng.random((256, 256)) > 0.5).astype(np.uint8)
    shares = mask.reshape(64, 4, 64, 4).mean((1, 3))
    assert np.array_equal(letterbox_mask(mask, 64, smooth=True), shares >= 0.5)
    thin = np.zeros((256, 256), np.uint8)
    thin[101] = 1  # a quarter of each cell that it crosses; nearest neighbour loses it
    assert not letterbox_mask(thin, 64).any()
    assert letterbox_mask(thin, 64, smooth=True).sum() == 64
    assert not letterbox_mask(np.zeros((256, 256), np.uint8), 64, smooth=True).any()
    small = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(letterbox_image(small, 64, smooth=True), letterbox_image(small, 64))
