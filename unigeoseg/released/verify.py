"""Our model against reference outputs of the released code, quantity by quantity."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unigeoseg.errors import UserError
from unigeoseg.losses.terms import losses_at, most_uncertain
from unigeoseg.released.check_prompts import compare_prompts
from unigeoseg.released.convert import from_released, to_released
from unigeoseg.released.fixture import Arrays, Fixture
from unigeoseg.released.model import ReleasedUniGeoSeg
from unigeoseg.samples.batch import Batch

ABSOLUTE = RELATIVE = 1e-4
GRADIENT = 1e-3
#: Logits this near to zero may fall on either side.
MARGIN = 1e-4
#: Norms below this share of the largest one are rounding errors of exact zeros.
_ZERO = 1e-7
#: Relative differences of smaller numbers mean little.
_SMALL = 1e-2
#: Every how many-th row and column a recorded slice may hold.
_STEPS = (1, 2, 4, 8, 16)
_OVERFLOW = 1e30  # JSON has no infinity

Row = dict[str, float | bool]


@dataclass
class Run:
    """What our model made of one set."""

    quantities: dict[str, Tensor]
    predictions: Tensor
    bce: Tensor
    dice: Tensor
    language: Tensor
    gradients: dict[str, float]


def verify(
    folder: str | Path, only: str | None = None, tell: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Compares every set of a fixture, in float32 on the CPU.

    Args:
        folder: of the fixture.
        only: one set's name.
        tell: called with a set's name before it is run.

    Returns:
        ``{"sets": {set: {quantity: {"max_abs", "max_rel", "ok"}}}, "ok"}``.

    Raises:
        UserError: the folder is no fixture, or there is no such set.
    """
    fixture = Fixture(folder)
    if only is not None and only not in fixture.sets:
        raise UserError(f"{folder} has no set {only}: there are {', '.join(fixture.sets)}")
    model = fixture_model(fixture)
    sets: dict[str, dict[str, Row]] = {}
    for name in [only] if only else fixture.sets:
        if tell is not None:
            tell(name)
        sets[name] = verify_set(fixture, model, name)
    return {"sets": sets, "ok": all(row["ok"] for rows in sets.values() for row in rows.values())}


def fixture_model(fixture: Fixture) -> ReleasedUniGeoSeg:
    """The fixture's model with its weights, in eval mode, every parameter trainable."""
    config = fixture.config
    config = replace(config, vision=replace(config.vision, frozen=False))
    model = ReleasedUniGeoSeg(config, fixture.vocab_size)
    model.load_state_dict(from_released(fixture.weights(), config).state)
    return model.eval()


def verify_set(fixture: Fixture, model: ReleasedUniGeoSeg, name: str) -> dict[str, Row]:
    """All comparisons of one set."""
    batch, expected, meta = fixture.batch(name), fixture.arrays("outputs", name), fixture.meta[name]
    run = run_set(fixture, model, name, batch, expected)
    rows = {key: _close(value, expected[key]) for key, value in run.quantities.items() if key in expected}
    rows["mask_logits_all"] = _close(run.predictions[:, :, None], expected["mask_logits_all"])
    rows["eval_masks"] = _masks(run.predictions[-1], expected)
    for level in range(len(run.bce)):
        suffix = _suffix(level, len(run.bce))
        for part, values in (("mask", run.bce), ("dice", run.dice)):
            key = f"loss_{part}{suffix}"
            rows[key] = _close(values[level], np.array(meta["losses_unweighted"][key]))
    rows["loss_llm"] = _close(run.language, expected["loss_llm"])
    rows["gradient_norms"] = _gradients(run.gradients, meta["grad_norms"])
    if fixture.texts() and (fixture.folder / "tokenizer").is_dir():
        rows["prompt_tokens"] = compare_prompts(fixture, name, batch)
    return rows


def run_set(fixture: Fixture, model: ReleasedUniGeoSeg, name: str, batch: Batch, expected: Arrays) -> Run:
    """One forward and backward pass at the recorded points."""
    model.zero_grad(set_to_none=True)
    values: dict[str, Tensor] = {}
    with _recorded(model, values):
        predictions, states = model._run(batch)
    values["hidden"] = states
    if "logits_tail" in expected:
        tail = states[:, -expected["logits_tail"].shape[1] :]
        values["logits_tail"] = model.language.model.get_output_embeddings()(tail)
    quantities = {key: _like(value.detach(), key, expected) for key, value in values.items()}
    points = _points(fixture, model, predictions.detach(), expected)
    assert batch.masks is not None
    bce, dice = (part.mean(1).flip(0) for part in losses_at(predictions, batch.masks, points))
    language = model._language_loss(states, batch.located().labelled).mean()
    if str(fixture.arrays("inputs", name)["dataset_type"][0]) != "reason_seg":
        language = language * 0
    weights = model.config.loss
    (weights.bce * bce.sum() + weights.dice * dice.sum() + weights.language * language).backward()
    # Splitting and fusing are linear, so gradients convert as the weights do.
    gradients = {
        key: torch.zeros_like(p) if p.grad is None else p.grad for key, p in model.named_parameters()
    }
    released = to_released(gradients, model.config)
    norms = {key: float(g.double().norm()) for key, g in released.items() if g.is_floating_point()}
    return Run(quantities, predictions.detach(), bce.detach(), dice.detach(), language.detach(), norms)


@contextmanager
def _recorded(model: ReleasedUniGeoSeg, values: dict[str, Tensor]) -> Iterator[None]:
    """Fills ``values`` with the recorded quantities of the pass inside."""

    def keep(key: str, value: Tensor) -> None:
        values[key] = value.detach()

    def vision(_: nn.Module, __: Any, features: list[Tensor]) -> None:
        for number, feature in enumerate(features, start=2):
            keep("res5" if number == 5 else f"res{number}_slice", feature)

    def pixels(_: nn.Module, __: Any, output: tuple[Tensor, list[Tensor]]) -> None:
        keep("mask_features_slice", output[0])
        for number, level in enumerate(output[1]):
            keep("ms0" if number == 0 else f"ms{number}_slice", level)

    def query(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        keep("pooled_state", inputs[0])
        keep("seg_embedding", output[:, None])

    def language(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        keep("inputs_embeds", inputs[0])

    hooks = [
        model.vision.register_forward_hook(vision),
        model.connector.register_forward_hook(lambda _, __, output: keep("mm_tokens", output)),
        model.language.register_forward_hook(language),
        model.query.register_forward_hook(query),
        model.query.text.register_forward_hook(lambda _, __, output: keep("origin_proj", output)),
        model.query.fusion.register_forward_hook(lambda _, __, output: keep("dproj", output)),
        model.pixel_decoder.register_forward_hook(pixels),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _like(value: Tensor, key: str, expected: Arrays) -> Tensor:
    """A map thinned to the recorded slice of it; anything else as it is."""
    if key.endswith("_slice") and key in expected:
        side, kept = value.shape[-1], expected[key].shape[-1]
        step = next((s for s in _STEPS if -(-side // s) == kept), 1)
        return value[..., ::step, ::step]
    return value


def _points(fixture: Fixture, model: ReleasedUniGeoSeg, predictions: Tensor, expected: Arrays) -> Tensor:
    """Loss points ``[P, B, N, 2]``: the recorded ones of the last prediction, by the rule for the others."""
    config, (levels, count) = model.config.loss, predictions.shape[:2]
    kept = int(config.points * config.importance)
    chosen = []
    for number in range(levels):
        loss_level = (number + 1) % levels  # the last prediction is loss level 0
        if loss_level == 0:
            chosen.append(torch.from_numpy(expected["points_final"]))
            continue
        candidates = fixture.points("over", loss_level, count, int(config.points * config.oversample))
        uniform = fixture.points("rand", loss_level, count, config.points - kept)
        nearest = most_uncertain(predictions[number][:, None], candidates, kept)[:, 0]
        chosen.append(torch.cat([nearest, uniform], dim=1))
    return torch.stack(chosen)


def _suffix(level: int, levels: int) -> str:
    """Loss names there: none for the last prediction (our first after the flip), then those before it."""
    return "" if level == 0 else f"_{levels - 1 - level}"


def _close(value: Tensor, expected: NDArray[Any]) -> Row:
    """Largest differences; ok within 1e-4 absolute plus 1e-4 relative of each number."""
    target = torch.from_numpy(np.asarray(expected)).double()
    if value.numel() != target.numel():
        return {"max_abs": float(value.numel()), "max_rel": 1.0, "ok": False}
    apart = (value.double().reshape(target.shape) - target).abs()
    if not bool(apart.isfinite().all()):
        return {"max_abs": _OVERFLOW, "max_rel": _OVERFLOW, "ok": False}
    return {
        "max_abs": float(apart.max()),
        "max_rel": float((apart / target.abs().clamp(min=_SMALL)).max()),
        "ok": bool((apart <= ABSOLUTE + RELATIVE * target.abs()).all()),
    }


def _masks(last: Tensor, expected: Arrays) -> Row:
    """Numbers of evaluation pixels that differ: in all, and (max_rel) as a share; none beyond the margin."""
    truth = torch.from_numpy(expected["eval_pred_masks"]).bool()
    logits = nn.functional.interpolate(
        last[:, None], size=truth.shape[-2:], mode="bilinear", align_corners=False
    )[:, 0]
    differ = (logits > 0) != truth
    beyond = differ & (logits.abs() >= MARGIN)
    return {
        "max_abs": float(differ.sum()),
        "max_rel": float(differ.float().mean()),
        "ok": not bool(beyond.any()),
    }


def _gradients(found: dict[str, float], expected: dict[str, float | None]) -> Row:
    """Gradient norms; a parameter without gradient there must have none here."""
    zero = _ZERO * max(norm for norm in expected.values() if norm is not None)
    worst_abs = worst_rel = 0.0
    for key, recorded in expected.items():
        norm = recorded or 0.0
        apart = abs(found.get(key, 0.0) - norm)
        worst_abs = max(worst_abs, apart)
        if norm > zero:
            worst_rel = max(worst_rel, apart / norm)
        elif apart > zero:
            worst_rel = max(worst_rel, apart / zero)
    return {"max_abs": worst_abs, "max_rel": worst_rel, "ok": worst_rel <= GRADIENT}
