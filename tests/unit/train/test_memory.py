"""The memory model against arithmetic by hand and DeepSpeed's own estimators."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pipelines.bench.samples import bench_tokenizer
from pipelines.config import Config
from pipelines.models.job_model import make_model
from pipelines.models.live_bytes import peak_bytes
from pipelines.models.sizes import ModuleSizes, Sizes, measure_model
from pipelines.train.engine.memory import (
    highest,
    memory_rows,
    model_states,
    needed,
    stages_of,
    what_fits,
)
from tests.train_runs import tiny_values
from unigeoseg.optim.orthogonal import matrix_names

MILLION = 10**6
SIZES = Sizes(
    total=400 * MILLION,
    trained=400 * MILLION,
    largest=50 * MILLION,
    modules={
        False: (
            ModuleSizes(100 * MILLION, True, 1000, 3000),
            ModuleSizes(300 * MILLION, False, 500, 600),
        ),
        True: (ModuleSizes(100 * MILLION, True, 10, 900), ModuleSizes(300 * MILLION, False, 50, 300)),
    },
)


def _config(**changes):
    values = {"train.precision": "bf16", "scale.gpus_per_worker": 1, "scale.workers": 8}
    return Config.model_validate(tiny_values(**{**values, "train.global_batch": 16, **changes}))


@pytest.mark.parametrize("world", [1, 8])
def test_states_of_stage_2_and_3_are_deepspeeds_estimates(world):
    """Theirs: weights, gradients in both precisions, masters, moments; stage 3 besides the largest layer."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    flattened = 4 * SIZES.trained // world  # a copy of the gradients, which they leave out
    whole = _config(**{"scale.workers": world})
    states = model_states(whole, SIZES, 2, False, world, world)
    assert (
        states.kept + states.update - flattened
        == estimate_zero2_model_states_mem_needs(SIZES.trained, world, 1, cpu_offload=False)[1]
    )
    states = model_states(whole, SIZES, 3, False, world, world)
    gathered = 2 * SIZES.total
    theirs = estimate_zero3_model_states_mem_needs(
        SIZES.trained, SIZES.largest, world, 1, cpu_offload=False, cpu_offload_params=False
    )
    own_weights = 2 * SIZES.trained // world  # a worker's share of them is not in their 18 bytes
    assert states.kept + states.update - flattened - gathered - own_weights == theirs[1] - theirs[2]


def test_a_sum_of_micro_batches_in_float32_takes_the_place_of_both_gradients():
    """Stage 2: 4 bytes of a share instead of 2 of all and 4; stage 3: a share's place in float32."""
    share, config = SIZES.trained // 8, _config(**{"train.global_batch": 32, "train.micro_batch": 2})
    narrow = _config(
        **{"train.global_batch": 32, "train.micro_batch": 2, "engine.accumulation_dtype": "bf16"}
    )
    (apart, plain) = (model_states(c, SIZES, 2, False, 8, 8) for c in (config, narrow))
    assert plain.update - apart.update == 2 * share and apart.gradient == 2 * plain.gradient == 0.5
    (apart, plain) = (model_states(c, SIZES, 3, False, 8, 8) for c in (config, narrow))
    assert apart.kept - plain.kept == 2 * share


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_bucket_that_is_summed_over_workers_in_float32_is_there_twice(stage):
    narrow, wide = (_config(**{"engine.reduction_dtype": dtype}) for dtype in ("bf16", "fp32"))
    before, after = (model_states(c, SIZES, stage, False, 8, 8) for c in (narrow, wide))
    bucket = before.limit if stage == 3 else before.passing
    assert after.passing == before.passing + 2 * bucket and after.kept == before.kept


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_muon_keeps_one_moment_of_what_it_turns(stage):
    sizes = replace(SIZES, matrices=300 * MILLION)
    plain, muon = _config(), _config(**{"train.optimizer": "muon"})
    before, after = (model_states(config, sizes, stage, False, 8, 8) for config in (plain, muon))
    assert before.kept - after.kept == 4 * sizes.matrices / (8 if stage else 1)
    assert {row.stage for row in memory_rows(muon, sizes, 8, 8)} == {0, 1, 2} == set(stages_of(muon))
    assert stages_of(plain) == (0, 1, 2, 3)


def test_what_muon_turns_is_counted_on_the_model():
    config = Config.model_validate(tiny_values())
    model = make_model(config, bench_tokenizer(config))[0]
    turned = matrix_names(model)
    expected = sum(p.numel() for name, p in model.named_parameters() if name in turned and p.requires_grad)
    values = config.plain()
    values["tokenizer"]["vocab_size"] = bench_tokenizer(config).vocab_size
    assert measure_model(Config.model_validate(values))[0].matrices == expected > 0


def test_the_largest_micro_batch_that_fits_is_named_and_else_another_row():
    config = _config(**{"scale.workers": 2, "train.global_batch": 24, "engine.zero_stage": 2})
    heavy = Sizes(
        400 * MILLION,
        400 * MILLION,
        50 * MILLION,
        {on: (ModuleSizes(400 * MILLION, True, size, size),) for on, size in ((False, 10**9), (True, 10**7))},
    )

    def peak(micro):
        values = {"scale.workers": 2, "train.global_batch": 24, "train.micro_batch": micro}
        return needed(_config(**values), heavy, 2, 2).device

    for micro, smaller in ((6, 4), (4, 3), (3, 2), (2, 1)):  # room for `smaller`, not for the next above
        room = (peak(smaller) + peak(micro)) / 2
        assert what_fits(config, heavy, 2, 2, room).startswith(f"train.micro_batch={smaller} would need ")
    room = peak(1) - 1
    assert "train.activation_checkpointing=true would need" in what_fits(config, heavy, 2, 2, room)
    assert what_fits(config, heavy, 2, 2, 10.0**6) == ""


def test_each_stage_divides_more():
    config = _config()
    rows = {(r.stage, r.offload, r.checkpointing): r for r in memory_rows(config, SIZES, 8, 8)}
    assert len(rows) == 14
    peaks = [rows[(stage, False, False)].device for stage in (1, 2)]
    assert peaks == sorted(peaks, reverse=True)
    assert rows[(2, True, False)].device < rows[(2, False, False)].device
    assert rows[(2, True, False)].host > 0 == rows[(2, False, False)].host
    assert rows[(2, False, True)].activations < rows[(2, False, False)].activations


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({}, 2),  # on a GPU, two images at once
        ({"engine.look_ahead": False}, 0),
        ({"model.vision.frozen": False}, 0),
        ({"scale.gpus_per_worker": 0}, 0),
        ({"scale.gpus_per_worker": 0, "engine.look_ahead": True}, 2),
    ],
)
def test_an_encoder_that_runs_ahead_needs_its_memory_once_more(changes, held):
    peak = 5 * 10**9  # of its pass, far above what the update takes
    vision = ModuleSizes(0, True, 0, peak)
    sizes = Sizes(10**6, 10**6, 10**6, dict.fromkeys((False, True), (vision, SIZES.modules[False][1])))
    config = _config(**{"model.vision.frozen": True} | changes)
    for row in memory_rows(config, sizes, 8, 8):
        without = config.model_copy(update={"engine": config.engine.model_copy(update={"look_ahead": False})})
        plain = next(
            r
            for r in memory_rows(without, sizes, 8, 8)
            if (r.stage, r.offload, r.checkpointing) == (row.stage, row.offload, row.checkpointing)
        )
        assert row.device - plain.device == (held * peak if row.stage < 3 else 0)


def test_the_highest_point_of_a_step():
    modules = SIZES.modules[False]
    # Two images with three instructions each: the first module runs twice, the second six times.
    assert highest(modules, 2, 6, 0.0) == max(2 * 1000 + 6 * 600, 2 * 3000)
    grads = 300 * MILLION * 4
    assert highest(modules, 2, 6, 4.0) == max(grads + 2 * 3000, grads + 100 * MILLION * 4)
    assert highest(modules, 2, 6, 4.0, limit=100.0) == 2 * 3000 + 100


class _Chain(nn.Module):
    """Squares, so that each keeps its input; perhaps recomputed."""

    def __init__(self, recompute: bool) -> None:
        super().__init__()
        self.weight, self.recompute = nn.Parameter(torch.ones(1)), recompute

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            x = checkpoint(self._block, x, use_reentrant=False) if self.recompute else self._block(x)
        return x

    def _block(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = (x * self.weight).exp()
        return x


def test_peaks_count_what_lives_at_once():
    size = 1000 * 4
    with torch.device("meta"):
        plain, recomputed = _Chain(False), _Chain(True)
    given = torch.empty(1000, device="meta", requires_grad=True)
    whole = peak_bytes(plain, lambda: plain(given))
    # 12 results of exp are kept, 12 products are not: exp keeps its result, the product its input.
    assert 12 * size <= whole <= 17 * size
    # One block's three results at a time, and the four blocks' inputs and outputs.
    assert 6 * size <= peak_bytes(recomputed, lambda: recomputed(given)) <= 11 * size
    assert given.grad is not None and plain.weight.grad is None
