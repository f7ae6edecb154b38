"""Empty and full masks and soft dice against NumPy, and by task in the losses of a batch."""

import numpy as np
import torch

from unigeoseg.losses.mask_watch import WATCHED, watch_masks
from unigeoseg.metrics import logit


def test_empty_full_and_soft_dice():
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 6, 6, generator=g)
    logits[0] = -3.0
    logits[1] = 3.0
    masks = (torch.rand(4, 12, 12, generator=g) > 0.7).to(torch.uint8)
    found = dict(zip(WATCHED, watch_masks(logits, masks, 0.0).tolist(), strict=True))
    assert found["empty"] == [1, 0, 0, 0]
    assert found["full"] == [0, 1, 0, 0]
    for b in range(4):
        t = masks[b].double().numpy().reshape(6, 2, 6, 2).mean((1, 3))
        s = 1 / (1 + np.exp(-logits[b].double().numpy()))
        want = (2 * (s * t).sum() + 1) / (s.sum() + t.sum() + 1)
        np.testing.assert_allclose(found["soft_dice"][b], want, rtol=1e-5)


def test_the_losses_sum_them_by_task(model, batch):
    losses = model(batch, torch.Generator().manual_seed(0))
    with torch.no_grad():
        predictions, _ = model._run(batch)
    each = watch_masks(predictions[-1], batch.masks, 0.0)
    for task in range(3):
        torch.testing.assert_close(losses.watched[:, task], each[:, batch.task == task].sum(1))


def test_a_lower_threshold_fills_masks():
    logits, masks = torch.full((1, 4, 4), -0.5), torch.ones(1, 4, 4, dtype=torch.uint8)  # probability 0.38
    empty, full = WATCHED.index("empty"), WATCHED.index("full")
    assert watch_masks(logits, masks, 0.0)[[empty, full], 0].tolist() == [1, 0]
    assert watch_masks(logits, masks, logit(0.3))[[empty, full], 0].tolist() == [0, 1]


def test_targets_that_are_absent_are_no_empty_masks():
    logits = torch.full((4, 6, 6), -3.0)
    logits[1, 2, 3] = logits[3, 2, 3] = 2.0
    masks = torch.zeros(4, 12, 12, dtype=torch.uint8)
    masks[2:, 4:6, 6:8] = 1
    found = dict(zip(WATCHED, watch_masks(logits, masks, 0.0).tolist(), strict=True))
    assert found["absent"] == [1, 1, 0, 0]
    assert found["false_alarms"] == [0, 1, 0, 0]
    assert found["empty"] == [0, 0, 1, 0]
    assert found["soft_dice"][:2] == [0, 0] and min(found["soft_dice"][2:]) > 0
