"""The language model on each token once, against whole padded sequences."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig

from tests.unit.model.conftest import group
from unigeoseg.modules.packed_attention import PACKED, takes_packing
from unigeoseg.modules.packing import packed_places
from unigeoseg.samples.collate import Collator


def _padded(batch):
    return dataclasses.replace(batch, places=None, first=None)


def _gradients(model, batch):
    model.zero_grad()
    losses = model(batch, torch.Generator().manual_seed(0))
    losses.total.backward()
    return losses, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_losses_and_gradients_are_those_of_whole_sequences(model, batch):
    assert len(batch.first) < int(batch.token_mask.sum()) < batch.places.numel()
    packed, ours = _gradients(model, batch)
    whole, theirs = _gradients(model, _padded(batch))
    assert float(packed.total) == pytest.approx(float(whole.total), rel=1e-6)
    assert packed.parts["language"] == pytest.approx(float(whole.parts["language"]), rel=1e-5)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5)


def test_predictions_are_those_of_whole_sequences(model, batch):
    torch.testing.assert_close(model.predict(batch), model.predict(_padded(batch)), rtol=1e-4, atol=1e-5)


def test_a_mask_given_after_a_packed_batch_still_counts(model, batch):
    states = torch.randn(2, 6, model.language.width, generator=torch.Generator().manual_seed(0))
    hidden = torch.ones(2, 6, dtype=torch.bool)
    hidden[0, 2] = False
    expected = model.language(states, hidden)
    model.predict(batch)
    torch.testing.assert_close(model.language(states, hidden), expected)
    assert not torch.allclose(expected, model.language(states))


def test_recomputed_blocks_see_the_packing_again(model, batch):
    _, plain = _gradients(model, batch)
    model.train().enable_activation_checkpointing()
    _, again = _gradients(model, batch)
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient)


def test_every_token_is_there_once_and_only_common_beginnings_are_shared():
    rng = np.random.default_rng(0)
    for _ in range(200):
        images = np.sort(rng.integers(0, 3, 5)).tolist()
        ids, lengths = rng.integers(0, 2, (5, 7)), rng.integers(1, 8, 5).tolist()
        shared = [int(rng.integers(0, n + 1)) for n in lengths]
        places, first, _ = packed_places(ids, lengths, shared, images)
        assert sorted(set(places[np.arange(7) < np.array(lengths)[:, None]])) == list(range(len(first)))
        for row, length in enumerate(lengths):
            for column in range(length):
                source, place = divmod(int(first[places[row, column]]), 7)
                assert place == column and images[source] == images[row]
                if source != row:
                    assert column < shared[row] and column < shared[source]
                    assert (ids[source, : column + 1] == ids[row, : column + 1]).all()


def test_sequences_of_one_image_share_all_they_can():
    ids = np.array([[5, 6, 7, 8], [5, 6, 7, 9], [5, 6, 4, 4], [5, 6, 7, 8]])
    places, first, _ = packed_places(ids, [4] * 4, [3, 3, 3, 3], [0, 0, 0, 1])
    assert places[1, :2].tolist() == places[0, :2].tolist() and places[1, 2] != places[0, 2]
    assert len(first) == 4 + 2 + 2 + 4


def test_the_collator_shares_the_template_and_the_image_tokens(collator):
    batch = collator([group(0)])
    start = int(batch.instruction_mask.int().argmax(1).min())
    same = (batch.places[:, :start] == batch.places[:1, :start]).all(0)
    assert int(same.sum()) > int(batch.image_mask[0].sum())


def test_models_that_mix_tokens_otherwise_are_given_whole_sequences():
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    plain = LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes))
    assert takes_packing(plain)
    plain.set_attn_implementation("eager")
    assert not takes_packing(plain)
    windowed = MistralConfig(vocab_size=16, sliding_window=4, attn_implementation="sdpa", **sizes)
    plain.config = windowed
    assert not takes_packing(plain)


def test_a_language_model_of_another_kind_is_packed_too(model, batch):
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(1)
    model.language.model = LlamaForCausalLM(LlamaConfig(vocab_size=320, num_key_value_heads=2, **sizes))
    packed, ours = _gradients(model, batch)
    assert model.language.model.config._attn_implementation == PACKED
    whole, theirs = _gradients(model, _padded(batch))
    assert float(packed.total) == pytest.approx(float(whole.total), rel=1e-6)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("multiple", [2, 5, 32])
def test_a_row_of_a_round_length_has_the_same_tokens_and_ends_with_one_that_nothing_reads(multiple):
    ids = np.array([[5, 6, 7, 8, 9], [5, 6, 7, 9, 0], [5, 6, 4, 4, 4]])
    arguments = ids, [5, 4, 5], [3, 3, 3], [0, 0, 1]
    places, first, count = packed_places(*arguments)
    same, longer, still = packed_places(*arguments, multiple)
    assert (same == places).all() and still == count == len(first)
    assert len(longer) % multiple == 0 and len(longer) - count < multiple
    assert (longer[:count] == first).all() and (longer[count:] == first[0]).all()


@pytest.mark.parametrize("multiple", [8, 64])
def test_round_lengths_change_no_loss_and_no_gradient(model, tokenizer, config, multiple):
    groups = [group(0), group(1, 3)]
    plain, padded = Collator(tokenizer, config)(groups), Collator(tokenizer, config, 256, multiple)(groups)
    assert padded.input_ids.shape[1] % multiple == 0 and len(padded.first) % (7 * multiple) == 0
    assert len(padded.first) > len(plain.first) and padded.tokens == plain.tokens == len(plain.first)
    losses, gradients = _gradients(model, plain)
    same, again = _gradients(model, padded)
    assert float(same.total) == pytest.approx(float(losses.total), rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-5)


def test_a_sequence_is_never_padded_past_the_longest_that_the_model_reads(tokenizer, config):
    groups = [group(0)]
    longest = Collator(tokenizer, config)(groups).input_ids.shape[1]
    assert Collator(tokenizer, config, longest + 3, 256)(groups).input_ids.shape[1] == longest + 3
