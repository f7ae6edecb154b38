"""Mask losses against float64 NumPy at the same points, and how the points are chosen."""

import numpy as np
import torch

from tests.unit.model.conftest import tiny_config
from unigeoseg.config import LossConfig
from unigeoseg.losses.terms import (
    dense_losses,
    loss_points,
    mask_losses,
    point_sample,
    shifted_points,
    uncertain_points,
)
from unigeoseg.modules.language import LanguageModel
from unigeoseg.modules.where import Labelled

CONFIG = LossConfig(points=40, oversample=3.0, importance=0.75)
KEYS = torch.tensor([11, 987654321, 5])


def bilinear(grid, x, y):
    """Value at (x, y) in [0, 1]; pixel centres at (i + 0.5) / n, zeros outside."""
    height, width = grid.shape
    px, py = x * width - 0.5, y * height - 0.5
    x0, y0 = int(np.floor(px)), int(np.floor(py))
    total = 0.0
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, col = y0 + i, x0 + j
        if 0 <= row < height and 0 <= col < width:
            total += grid[row, col] * (1 - abs(px - col)) * (1 - abs(py - row))
    return total


def inputs():
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 6, 5, generator=g), (torch.rand(3, 12, 10, generator=g) > 0.6).to(torch.uint8)


def test_point_sample_is_bilinear_with_zeros_outside():
    maps = torch.randn(2, 3, 4, 3)
    points = torch.rand(2, 7, 2)
    got = point_sample(maps, points).numpy()
    want = [[[bilinear(m.numpy(), *p.tolist()) for p in points[n]] for m in maps[n]] for n in range(2)]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_bce_and_dice_summed_over_levels():
    predictions, masks = inputs()
    seed = torch.Generator().manual_seed(9)
    points = uncertain_points(predictions, KEYS, CONFIG, seed)
    bce, dice = mask_losses(predictions, masks, KEYS, CONFIG, torch.Generator().manual_seed(9))
    for b in range(3):
        want_bce = want_dice = 0.0
        for level in range(2):
            where = points[level, b].double().numpy()
            z = np.array([bilinear(predictions[level, b].double().numpy(), *p) for p in where])
            t = np.array([bilinear(masks[b].double().numpy(), *p) for p in where])
            s = 1 / (1 + np.exp(-z))
            want_bce += np.mean(-(t * np.log(s) + (1 - t) * np.log(1 - s)))
            want_dice += 1 - (2 * (s * t).sum() + 1) / (s.sum() + t.sum() + 1)
        np.testing.assert_allclose([bce[b], dice[b]], [want_bce, want_dice], rtol=1e-4)


def test_three_quarters_of_the_points_are_the_most_uncertain_candidates():
    predictions, _ = inputs()
    points = uncertain_points(predictions, KEYS, CONFIG, torch.Generator().manual_seed(1))
    assert points.shape == (2, 3, 40, 2)
    base = torch.rand(120, 2, generator=torch.Generator().manual_seed(1))
    for level, logits in enumerate(predictions[:, :, None]):
        margins = point_sample(logits, shifted_points(base, KEYS))[:, 0].abs()
        kept = point_sample(logits, points[level, :, :30])[:, 0].abs()
        torch.testing.assert_close(kept.sort(1).values, margins.sort(1).values[:, :30])


def test_points_depend_on_the_sample_and_the_step_alone():
    base = torch.rand(50, 2)
    together, alone = shifted_points(base, KEYS), shifted_points(base, KEYS[1:2])
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    assert (together >= 0).all()
    assert (together < 1).all()


def test_language_loss_is_the_mean_over_a_samples_labelled_tokens():
    torch.manual_seed(0)
    language = LanguageModel(tiny_config().language, 50)
    states = torch.randn(3, 6, 32)
    labels = torch.full((3, 6), -100)
    labels[0, 3:], labels[2, 5] = torch.tensor([4, 9, 1]), 7
    loss = language.loss(states, Labelled.of(labels))
    head = language.model.get_output_embeddings()
    logits = (states.double() @ head.weight.double().T + head.bias.double()).detach().numpy()
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    want = [-np.mean([logp[0, 2, 4], logp[0, 3, 9], logp[0, 4, 1]]), 0.0, -logp[2, 4, 7]]
    np.testing.assert_allclose(loss.detach().numpy(), want, rtol=1e-5, atol=1e-6)


def test_dense_losses_are_those_of_every_cell_against_its_share():
    predictions, masks = inputs()
    bce, dice = dense_losses(predictions, masks)
    summed = mask_losses(predictions, masks, KEYS, LossConfig(sampling="dense"), None)
    torch.testing.assert_close(summed, (bce.sum(0), dice.sum(0)))
    for level in range(2):
        for b in range(3):
            z = predictions[level, b].double().numpy()
            t = masks[b].double().numpy().reshape(6, 2, 5, 2).mean((1, 3))
            s = 1 / (1 + np.exp(-z))
            want = np.mean(-(t * np.log(s) + (1 - t) * np.log(1 - s)))
            np.testing.assert_allclose(bce[level, b], want, rtol=1e-5)
            want = 1 - (2 * (s * t).sum() + 1) / (s.sum() + t.sum() + 1)
            np.testing.assert_allclose(dice[level, b], want, rtol=1e-5)


def test_uniform_points_are_the_shifted_base_at_every_level():
    predictions, _ = inputs()
    config = LossConfig(sampling="uniform", points=40)
    points = loss_points(predictions, KEYS, config, torch.Generator().manual_seed(3))
    base = torch.rand(40, 2, generator=torch.Generator().manual_seed(3))
    assert points.shape == (2, 3, 40, 2)
    for level in points:
        torch.testing.assert_close(level, shifted_points(base, KEYS))


def test_an_empty_truth_is_exact_and_pulls_every_mask_down():
    predictions, _ = inputs()
    masks = torch.zeros(3, 12, 10, dtype=torch.uint8)
    for sampling in ("uncertain", "uniform", "dense"):
        config = LossConfig(points=40, oversample=3.0, importance=0.75, sampling=sampling)
        logits = predictions.clone().requires_grad_()
        bce, dice = mask_losses(logits, masks, KEYS, config, torch.Generator().manual_seed(9))
        points = None
        if sampling != "dense":
            points = loss_points(predictions, KEYS, config, torch.Generator().manual_seed(9))
        for b in range(3):
            want_bce = want_dice = 0.0
            for level in range(2):
                grid = predictions[level, b].double().numpy()
                at = [] if points is None else points[level, b].double().numpy()
                z = grid.ravel() if points is None else np.array([bilinear(grid, *p) for p in at])
                s = 1 / (1 + np.exp(-z))
                want_bce += np.mean(np.log1p(np.exp(z)))  # nothing but background
                want_dice += 1 - 1 / (s.sum() + 1)
            np.testing.assert_allclose(bce[b].item(), want_bce, rtol=1e-5)
            np.testing.assert_allclose(dice[b].item(), want_dice, rtol=1e-5)
        (bce + dice).sum().backward()
        assert torch.isfinite(logits.grad).all() and (logits.grad >= 0).all() and (logits.grad > 0).any()
    sure = torch.full((1, 1, 6, 5), -60.0)
    for sampling in ("uncertain", "uniform", "dense"):
        config = LossConfig(points=40, sampling=sampling)
        bce, dice = mask_losses(sure, masks[:1], KEYS[:1], config, torch.Generator().manual_seed(1))
        assert abs(bce.item()) < 1e-6 and abs(dice.item()) < 1e-6
