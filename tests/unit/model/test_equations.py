"""TATE, LKM and pooling against float64 NumPy written from the paper's equations, sample by sample."""

import numpy as np
import pytest
import torch

from unigeoseg.config import LKMConfig, TATEConfig
from unigeoseg.modules.lkm import LatentKnowledgeMemory
from unigeoseg.modules.query import InstructionPooling
from unigeoseg.modules.tate import TATE

D, L = 8, 5
LENGTHS = [5, 3, 1, 4, 2]
TASKS = [0, 1, 2, 0, 1]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def linear(x, layer):
    y = x @ layer.weight.detach().numpy().T
    return y if layer.bias is None else y + layer.bias.detach().numpy()


@pytest.fixture
def inputs():
    g = torch.Generator().manual_seed(3)
    text = torch.randn(len(TASKS), L, D, generator=g, dtype=torch.float64)
    mask = torch.tensor([[i < n for i in range(L)] for n in LENGTHS])
    coordinates = torch.zeros(len(TASKS), 6, dtype=torch.float64)
    given = torch.zeros(len(TASKS), 7, dtype=torch.bool)
    coordinates[0, :4], given[0, :4], given[0, 6] = torch.tensor([0.1, 0.2, 0.5, 0.6]), True, True
    coordinates[3, :6], given[3, :6] = torch.tensor([0.3, 0.9, 0.4, 0.8, 0.5, 0.7]), True
    return text, mask, torch.tensor(TASKS), coordinates, given


def expected_tate(tate, text, length, task, coordinates, given):
    """One sample, its own tokens only."""
    e = text[:length].numpy()
    if task == 0:
        zipped = zip(coordinates.tolist(), given[:6].tolist(), strict=True)
        values = [(2 * c - 1) if ok else 0.0 for c, ok in zipped]
        prompt = linear(np.array(values + [float(v) for v in given.tolist()]), tate.interactive.proj)
        return np.stack([linear(np.concatenate([row, prompt]), tate.interactive.fusion) for row in e])
    if task == 1:
        q = tate.referring.query.detach().numpy()
        a = softmax(e @ q / np.sqrt(D))
        return e * (length * a)[:, None]
    queries = tate.reasoning.queries.detach().numpy()
    pooled = np.mean([softmax(e @ q / np.sqrt(D)) @ e for q in queries], axis=0)
    x = pooled + linear(e, tate.reasoning.gate)
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    norm = tate.reasoning.norm
    return normed * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def test_tate_follows_equations_1_to_5_in_a_mixed_padded_batch(inputs):
    torch.manual_seed(1)
    tate = TATE(TATEConfig(dropout=0.0), D).double()
    out = tate(*inputs).detach().numpy()
    text, _, tasks, coordinates, given = inputs
    for b, length in enumerate(LENGTHS):
        want = expected_tate(tate, text[b], length, int(tasks[b]), coordinates[b], given[b])
        np.testing.assert_allclose(out[b, :length], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("branches", "task"), [("referring", 1), ("reasoning", 2)])
def test_table_7_switches_send_every_sample_through_one_branch(inputs, branches, task):
    torch.manual_seed(1)
    tate = TATE(TATEConfig(branches=branches, dropout=0.0), D).double()
    text, _, _, coordinates, given = inputs
    out = tate(*inputs).detach().numpy()
    for b, length in enumerate(LENGTHS):
        want = expected_tate(tate, text[b], length, task, coordinates[b], given[b])
        np.testing.assert_allclose(out[b, :length], want, rtol=1e-5, atol=1e-6)


def test_without_tate_the_embeddings_pass_unchanged(inputs):
    tate = TATE(TATEConfig(branches="none", dropout=0.0), D).double()
    assert torch.equal(tate(*inputs)[inputs[1]], inputs[0][inputs[1]])


def test_referring_pooled_form_is_equation_2_as_printed(inputs):
    tate = TATE(TATEConfig(referring_form="pooled", dropout=0.0), D).double()
    out = tate(*inputs).detach().numpy()
    e = inputs[0][1, : LENGTHS[1]].numpy()
    a = softmax(e @ tate.referring.query.detach().numpy() / np.sqrt(D))
    np.testing.assert_allclose(out[1, 0], a @ e, rtol=1e-5, atol=1e-6)


def test_every_branch_takes_part_in_autograd_whatever_the_tasks(inputs):
    text, mask, _, coordinates, given = inputs
    tate = TATE(TATEConfig(), D).double()
    tate(text, mask, torch.zeros(len(TASKS), dtype=torch.long), coordinates, given).sum().backward()
    assert all(p.grad is not None for p in tate.parameters())
    assert torch.count_nonzero(tate.referring.query.grad) == 0


def test_lkm_follows_equations_6_and_7():
    torch.manual_seed(2)
    lkm = LatentKnowledgeMemory(LKMConfig(slots=4, weight=0.3), D).double()
    h = torch.randn(2, L, D, dtype=torch.float64)
    m = lkm.memory.detach().numpy()
    want = np.empty((2, L, D))
    for b in range(2):
        for i in range(L):
            state = h[b, i].numpy()
            want[b, i] = 0.7 * state + 0.3 * (softmax(m @ state) @ m)
    np.testing.assert_allclose(lkm(h).detach().numpy(), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("config", [LKMConfig(slots=0), LKMConfig(weight=0.0)])
def test_lkm_switched_off_is_the_identity_and_holds_no_parameters(config):
    lkm = LatentKnowledgeMemory(config, D)
    h = torch.randn(1, L, D)
    assert lkm(h) is h
    assert not list(lkm.parameters())


def test_pooling_reads_real_tokens_only(inputs):
    pooling = InstructionPooling(D).double()
    text, mask = inputs[:2]
    out = pooling(text, mask).detach().numpy()
    for b, length in enumerate(LENGTHS):
        h = text[b, :length].numpy()
        want = softmax(h @ pooling.query.detach().numpy() / np.sqrt(D)) @ h
        np.testing.assert_allclose(out[b], want, rtol=1e-5, atol=1e-7)
