"""Muon beside AdamW on whole parameters and on flat tensors, and which group each parameter is in."""

import torch
from torch import nn

from pipelines.config.training import TrainConfig
from pipelines.train.engine.muon import MuonAdamW
from pipelines.train.engine.optimizer import make_optimizer, parameter_groups
from pipelines.train.engine.spans import Span
from tests.unit.model.conftest import tiny_config
from unigeoseg.config import VisionConfig
from unigeoseg.model import UniGeoSeg
from unigeoseg.optim.orthogonal import orthogonal, step_scale

SHAPES = {"a": (12, 20), "b": (16, 4, 3, 3), "c": (12, 20)}


def _group(parameters, **more):
    return {"params": parameters, "names": set(SHAPES), "muon": True, **more}


def _parameters(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def test_three_steps_are_momentum_orthogonalised_and_scaled():
    weights = {n: nn.Parameter(v) for n, v in _parameters(0).items()}
    expected = {n: v.detach().clone() for n, v in weights.items()}
    momenta = {n: torch.zeros_like(v) for n, v in expected.items()}
    optimizer = MuonAdamW([_group(list(weights.values()))], lr=0.1, weight_decay=0.5)
    for step in range(3):
        for name, gradient in _parameters(step + 1).items():
            weights[name].grad = gradient.clone()
            momenta[name] = 0.95 * momenta[name] + 0.05 * gradient
            matrix = (0.05 * gradient + 0.95 * momenta[name]).flatten(1)
            update = orthogonal(matrix[None])[0].view_as(gradient) * step_scale(*matrix.shape)
            expected[name] = expected[name] * (1 - 0.1 * 0.5) - 0.1 * update
        optimizer.step()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name].detach(), value, rtol=1e-4, atol=1e-5)


def test_one_flat_tensor_is_trained_as_its_parameters_are():
    whole = {n: nn.Parameter(v) for n, v in _parameters(0).items()}
    flat = nn.Parameter(torch.cat([v.detach().flatten() for v in whole.values()]))
    spans, offset = [], 0
    for name, value in whole.items():
        spans.append(Span(name, tuple(value.shape), 0, value.numel(), flat, offset))
        offset += value.numel()
    one = MuonAdamW([_group([flat])], lr=0.1, weight_decay=0.1)
    one.place(spans)
    each = MuonAdamW([_group(list(whole.values()))], lr=0.1, weight_decay=0.1)
    for step in range(2):
        gradients = _parameters(step + 1)
        flat.grad = torch.cat([g.flatten() for g in gradients.values()])
        for name, gradient in gradients.items():
            whole[name].grad = gradient
        one.step()
        each.step()
    torch.testing.assert_close(flat.detach(), torch.cat([v.detach().flatten() for v in whole.values()]))
    assert one.moments(flat) == ("exp_avg",)


def test_other_parameters_are_trained_by_adamw_exactly(model, batch):
    train = TrainConfig(optimizer="muon", lr=1e-3, muon_lr=2.0, embedding_lr=5, weight_decay=0.01)
    optimizer, scales = make_optimizer(model, train, fused=False)
    groups = optimizer.param_groups
    assert sorted(zip([g["muon"] for g in groups], scales, strict=True)) == [
        (False, 1),
        (False, 5),
        (True, 2),
    ]
    others = [p for g in groups if not g["muon"] for p in g["params"]]
    copies = [nn.Parameter(p.detach().clone()) for p in others]
    plain = torch.optim.AdamW(copies, lr=1e-3, betas=train.betas, weight_decay=0.01)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(2):
        model.zero_grad()
        model(batch, torch.Generator().manual_seed(0)).total.backward()
        for copy, own in zip(copies, others, strict=True):
            copy.grad = None if own.grad is None else own.grad.clone()
        optimizer.step()
        plain.step()
    for copy, own in zip(copies, others, strict=True):
        assert torch.equal(copy, own)
    turned = {n for g in groups if g["muon"] for n in g["names"]}
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert turned and turned <= moved


def test_without_muon_there_is_one_group_of_adamw(model):
    groups, factors = parameter_groups(model, TrainConfig())
    assert factors == [1.0] and [g["muon"] for g in groups] == [False]


def test_each_half_of_the_matrices_costs_about_as_much_to_turn():
    """ZeRO cuts them in the middle; in the model's own order one half costs 1.6 of the other."""
    vision = VisionConfig(embed_dim=32, depths=(2, 2, 2, 2), heads=(2, 4, 8, 8), window=2, frozen=False)
    model = UniGeoSeg(tiny_config(vision=vision), 320)
    groups, _ = parameter_groups(model, TrainConfig(optimizer="muon"))
    (matrices,) = [g["params"] for g in groups if g["muon"]]
    half, done, costs = sum(p.numel() for p in matrices) / 2, 0, [0.0, 0.0]
    for matrix in matrices:
        cost = matrix.numel() * min(matrix.flatten(1).shape)
        first = min(max(half - done, 0), matrix.numel()) / matrix.numel()
        costs[0] += first * cost
        costs[1] += (1 - first) * cost
        done += matrix.numel()
    assert 0.75 < costs[0] / costs[1] < 1.33, costs
