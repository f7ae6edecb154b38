"""The baselines' own mathematics against float64 NumPy; they train, export and load as the model does."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.unit.model.conftest import group, tiny_config
from unigeoseg.baselines.psalm import PsalmLike, matching_cost
from unigeoseg.baselines.query_set import QuerySetDecoder
from unigeoseg.baselines.segearth import DescriptionQuery, SegEarthLike
from unigeoseg.build import build_model
from unigeoseg.config import BaselineConfig, ModelConfig
from unigeoseg.errors import UserError
from unigeoseg.export import load_export, save_export
from unigeoseg.modules.pixel_decoder import sine_positions
from unigeoseg.samples.collate import Collator
from unigeoseg.samples.prompts import template_texts
from unigeoseg.samples.tokens import train_tokenizer


def array(tensor):
    return tensor.detach().numpy()


def linear(x, layer):
    y = x @ array(layer.weight).T
    return y if layer.bias is None else y + array(layer.bias)


def norm(x, layer):
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps)
    return y * array(layer.weight) + array(layer.bias)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(layer, x, query, keys, values, allowed=None):
    """One query set, head by head."""
    q, k, v = linear(query, layer.q_proj), linear(keys, layer.k_proj), linear(values, layer.v_proj)
    width = q.shape[-1] // layer.heads
    read = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / math.sqrt(width)
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        read.append(softmax(scores) @ v[:, part])
    return norm(x + linear(np.concatenate(read, -1), layer.out_proj), layer.norm)


def half(logits):
    """Bilinear to half the size is the mean of four."""
    h, w = logits.shape
    return logits.reshape(h // 2, 2, w // 2, 2).mean((1, 3))


def expected_set(decoder, seg, features, levels):
    """The decoder for one instruction on one image whose mask map is twice and four times its level maps."""

    def predict(x):
        hidden = norm(x, decoder.norm)
        m = hidden
        for i in (0, 2, 4):
            m = linear(m, decoder.mask_embed[i])
            m = np.maximum(m, 0) if i < 4 else m
        masks = np.einsum("qc,chw->qhw", m, features)
        return masks, linear(hidden, decoder.class_embed) @ seg / math.sqrt(len(seg))

    x = array(decoder.content) + seg
    places = array(decoder.places)
    found = [predict(x)]
    for number, layer in enumerate(decoder.layers):
        level = levels[number % 3]
        c, h, w = level.shape
        values = level.reshape(c, -1).T + array(decoder.level_embed)[number % 3]
        keys = values + sine_positions(c, h, w).double().numpy().reshape(c, -1).T
        small = found[-1][0]
        while small.shape[-1] > w:
            small = np.stack([half(one) for one in small])
        allowed = small.reshape(len(small), -1) >= 0
        allowed |= ~allowed.any(1, keepdims=True)
        x = attention(layer.cross, x, x + places, keys, values, allowed)
        x = attention(layer.own, x, x + places, x + places, x)
        x = norm(x + linear(np.maximum(linear(x, layer.linear1), 0), layer.linear2), layer.norm)
        found.append(predict(x))
    return found


def test_query_set_decoder_follows_mask2former():
    torch.manual_seed(2)
    config = dataclasses.replace(tiny_config().decoder, hidden=8, heads=2, mask_ffn=12, mask_layers=2)
    decoder = QuerySetDecoder(config, [8, 4, 4, 4], queries=5).double()
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 8, 8, 8, generator=generator, dtype=torch.float64)
    levels = [torch.randn(2, 8, 4, 4, generator=generator, dtype=torch.float64) for _ in range(3)]
    seg = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    index = torch.tensor([0, 1, 1])
    masks, scores = decoder(seg, features, levels, index)
    assert masks.shape == (3, 3, 5, 8, 8) and scores.shape == (3, 3, 5)
    for b, image in enumerate(index.tolist()):
        expected = expected_set(
            decoder, array(seg[b]), array(features[image]), [array(v[image]) for v in levels]
        )
        for p, (m, s) in enumerate(expected):
            np.testing.assert_allclose(array(masks[p, b]), m, atol=1e-6)  # position codes are float32
            np.testing.assert_allclose(array(scores[p, b]), s, atol=1e-6)


def test_matching_cost_by_numpy():
    rng = np.random.default_rng(0)
    masks, scores = rng.normal(size=(2, 3, 4, 5, 5)), rng.normal(size=(2, 3, 4))
    truth = (rng.random((3, 10, 10)) < 0.3).astype(np.uint8)
    got = matching_cost(
        torch.from_numpy(masks), torch.from_numpy(scores), torch.from_numpy(truth), 5.0, 4.0, 2.0
    )
    target = truth.reshape(3, 5, 2, 5, 2).mean((2, 4))
    for p in range(2):
        for b in range(3):
            chance = softmax(scores[p, b])
            for q in range(4):
                m = 1 / (1 + np.exp(-masks[p, b, q]))
                bce = -(target[b] * np.log(m) + (1 - target[b]) * np.log(1 - m)).mean()
                dice = 1 - (2 * (m * target[b]).sum() + 1) / (m.sum() + target[b].sum() + 1)
                assert float(got[p, b, q]) == pytest.approx(5 * bce + 4 * dice - 2 * chance[q], abs=1e-5)


def test_description_query_by_numpy():
    torch.manual_seed(3)
    query = DescriptionQuery(6, 10, 16, 4).double()
    state = torch.randn(2, 6, dtype=torch.float64)
    res5 = torch.randn(1, 10, 2, 3, dtype=torch.float64)
    got = array(query(state, res5, torch.zeros(2, dtype=torch.int64)))
    fusion = query.fusion
    vision = norm(linear(array(res5[0]).reshape(10, -1).T, query.vision), fusion.norm_vision)
    for b in range(2):
        latent = linear(array(state[b]), query.description)
        own = norm(latent, fusion.norm_latent)
        kv = linear(np.concatenate([vision, own[None]]), fusion.to_kv)
        keys, values = kv[:, :16], kv[:, 16:]
        q = linear(own, fusion.to_q)
        read = []
        for head in range(8):
            part = slice(2 * head, 2 * head + 2)
            read.append(softmax(q[part] @ keys[:, part].T / math.sqrt(2)) @ values[:, part])
        latent = latent + linear(np.concatenate(read), fusion.to_out)
        hidden = linear(norm(latent, fusion.feed_forward[0]), fusion.feed_forward[1])
        gelu = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in hidden])
        latent = latent + linear(gelu, fusion.feed_forward[3])
        np.testing.assert_allclose(got[b], linear(norm(latent, fusion.norm_out), query.out), atol=1e-10)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    texts = [*template_texts(""), *(s.instruction for s in group(0).samples)] * 2
    return train_tokenizer(texts, 320, tmp_path_factory.mktemp("tokenizer"))


def model_of(kind, words):
    torch.manual_seed(0)
    config = tiny_config(baseline=BaselineConfig(kind=kind, queries=6))
    return build_model(config, words.vocab_size), Collator(words, config)


KINDS = {"psalm": PsalmLike, "segearth": SegEarthLike}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_learns_a_batch_by_heart_and_every_parameter_takes_part(kind, words):
    model, collator = model_of(kind, words)
    assert type(model) is KINDS[kind]
    assert not any(name.split(".")[0] in ("tate", "lkm") for name, _ in model.named_parameters())
    batch = collator([group(0), group(1)])
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    values = []
    for step in range(60):
        losses = model(batch, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        losses.total.backward()
        if step == 0:
            assert not [name for name, p in model.named_parameters() if p.grad is None]
            assert losses.total.item() == pytest.approx(losses.per_task.sum().item(), rel=1e-5)
        optimizer.step()
        values.append(float(losses.parts["mask_bce"] + losses.parts["mask_dice"]))
    assert np.mean(values[-5:]) < 0.5 * values[0]
    truth = batch.masks > 0
    predicted = model.eval().predict(batch) > 0
    overlap = (predicted & truth).flatten(1).sum(1) / (predicted | truth).flatten(1).sum(1)
    assert overlap.mean() > 0.5


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_export_loads_as_the_same_model(kind, words, tmp_path):
    model, collator = model_of(kind, words)
    save_export(tmp_path, model, words)
    loaded, _ = load_export(tmp_path)
    assert type(loaded) is KINDS[kind]
    batch = collator([dataclasses.replace(group(0), samples=group(0).samples)])
    torch.testing.assert_close(loaded.predict(batch), model.eval().predict(batch))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_instruction_does_not_depend_on_the_batch(kind, words):
    model, collator = model_of(kind, words)
    together = model.eval().predict(collator([group(0), group(1)]))
    alone = model.predict(collator([group(1)]))
    torch.testing.assert_close(together[4:], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_was_seen_of_a_picture_answers_the_same(kind, words):
    model, collator = model_of(kind, words)
    batch = collator([group(0)])
    seen = model.eval().look(batch.images)
    assert torch.equal(model.predict(batch, seen), model.predict(batch))
    blank = dataclasses.replace(batch, images=torch.zeros_like(batch.images))
    assert torch.equal(model.predict(blank, seen), model.predict(batch))  # it is not looked at again


def test_released_mode_has_no_baselines():
    config = ModelConfig(mode="released", baseline=BaselineConfig(kind="psalm"))
    with pytest.raises(UserError, match=r"model\.mode=paper"):
        build_model(config, 100)
