"""The DeepSpeed configuration and the learning rate: pure functions."""

import math
from itertools import pairwise

import pytest

from pipelines.config import Config
from pipelines.stream.layout import Layout
from pipelines.train.engine.deepspeed_config import accumulation_steps, deepspeed_config
from pipelines.train.engine.distributed import mixed_seed
from pipelines.train.engine.learning_rate import learning_rate
from tests.train_runs import tiny_values
from unigeoseg.errors import UserError


def _config(**overrides):
    return Config.model_validate(tiny_values(**overrides))


@pytest.mark.parametrize(("world", "micro", "steps"), [(1, None, 1), (2, None, 1), (2, 2, 4), (4, 1, 4)])
def test_batch_is_split_over_workers_and_micro_batches(world, micro, steps):
    config = _config(**{"train.global_batch": 16, "train.micro_batch": micro})
    made = deepspeed_config(config, world)
    assert made["gradient_accumulation_steps"] == steps == accumulation_steps(config, world)
    per_worker = made["train_micro_batch_size_per_gpu"] * steps
    assert per_worker * world == made["train_batch_size"] == 16


@pytest.mark.parametrize(
    ("batch", "world", "steps"), [(16, 4, 1), (16, 2, 2), (16, 1, 4), (12, 3, 2), (12, 2, 2), (12, 1, 4)]
)
def test_a_smaller_group_holds_no_more_at_once(batch, world, steps):
    config = _config(**{"train.global_batch": batch, "scale.workers": 4, "scale.min_workers": 1})
    made = deepspeed_config(config, world)
    assert made["gradient_accumulation_steps"] == steps
    assert made["train_micro_batch_size_per_gpu"] * steps * world == batch
    assert made["train_micro_batch_size_per_gpu"] <= batch // 4
    layout = Layout.of(config, 0, world, 0, 3)
    assert layout.micros_per_step == steps and layout.per_step == batch // world


def test_batch_that_does_not_divide_is_refused_with_what_works():
    with pytest.raises(UserError, match=r"over world size 3; .*workers of \[1, 2, 4, 8, 16\]"):
        deepspeed_config(_config(**{"train.global_batch": 16}), 3)
    with pytest.raises(UserError, match="micro_batch=8 does not divide the 4 positions"):
        deepspeed_config(_config(**{"train.global_batch": 16, "train.micro_batch": 8}), 4)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_precision_and_stage(stage, precision):
    made = deepspeed_config(_config(**{"engine.zero_stage": stage, "train.precision": precision}), 2)
    assert made["zero_optimization"]["stage"] == stage
    assert made["bf16"]["enabled"] == (precision == "bf16" and stage > 0)
    assert ("torch_autocast" in made) == (precision == "bf16" and stage == 0)


@pytest.mark.parametrize(
    ("stage", "micro", "more", "kept"),
    [
        (2, 1, {}, "fp32"),
        (3, 1, {}, "fp32"),
        (2, None, {}, None),  # one micro-batch: nothing is summed
        (1, 1, {}, None),
        (2, 1, {"engine.offload_optimizer": True}, None),
        (2, 1, {"engine.accumulation_dtype": "bf16"}, None),
        (2, 1, {"train.precision": "fp32"}, None),
    ],
)
def test_micro_batches_are_summed_in_float32_unless_asked_otherwise(stage, micro, more, kept):
    asked = {"engine.zero_stage": stage, "train.micro_batch": micro, "train.precision": "bf16"} | more
    made = deepspeed_config(_config(**asked, **{"engine.reduction_dtype": "fp32"}), 2)
    assert made.get("data_types", {}).get("grad_accum_dtype") == kept
    assert made.get("communication_data_type") == (None if "train.precision" in more else "fp32")


@pytest.mark.parametrize(
    ("gpus", "trained", "elements"),
    [
        (0, None, 15_000_000),
        (0, 4_001, 4_001),
        (0, 10**9, 15_000_000),
        (1, 4_001, 4_001),
        (1, None, 200_000_000),
    ],
)
def test_a_buffer_for_gradients_is_no_larger_than_they_are(gpus, trained, elements):
    config = _config(**{"scale.gpus_per_worker": gpus})
    assert deepspeed_config(config, 2, trained)["zero_optimization"]["reduce_bucket_size"] == elements
    assert 4 * 15_000_000 < 64 * 2**20  # what glibc gives a thread in one piece


def test_offload_needs_a_stage():
    config = _config(**{"engine.zero_stage": 2, "engine.offload_optimizer": True})
    assert "offload_optimizer" in deepspeed_config(config, 1)["zero_optimization"]
    with pytest.raises(ValueError, match="zero_stage=1, 2 or 3"):
        _config(**{"engine.zero_stage": 0, "engine.offload_optimizer": True})


def test_a_second_copy_within_a_node():
    asked = {"engine.zero_stage": 3, "scale.workers": 8, "train.global_batch": 16, "train.micro_batch": 1}
    config = _config(**asked, **{"engine.hpz_partition_size": 4, "scale.min_workers": 2})
    assert deepspeed_config(config, 8)["zero_optimization"]["zero_hpz_partition_size"] == 4
    assert config.world_sizes() == [4, 8]  # whole nodes
    with pytest.raises(ValueError, match=r"does not divide scale\.workers=8"):
        _config(**asked, **{"engine.hpz_partition_size": 3})
    with pytest.raises(ValueError, match=r"engine\.zero_stage=3, or leave it at 1"):
        _config(**{**asked, "engine.zero_stage": 2, "engine.hpz_partition_size": 4})


def test_an_unknown_backbone_is_refused_before_anything_starts():
    _config(**{"model.vision.backbone": "resnet18", "init.vision": "w.pth"})
    with pytest.raises(ValueError, match=r"backbone=resnet81: timm has no such model; near it: resnet18"):
        _config(**{"model.vision.backbone": "resnet81"})
    with pytest.raises(ValueError, match=r"init\.vision=/.*w\.pth .* set it, or give"):
        _config(**{"init.vision": "w.pth"})


@pytest.mark.parametrize("setting", [{"engine.zero_stage": 3}, {"engine.offload_optimizer": True}])
def test_muon_needs_whole_matrices_on_the_device(setting):
    _config(**{"train.optimizer": "muon", "engine.zero_stage": 2})
    with pytest.raises(ValueError, match=r"zero_stage=0, 1 or 2 .* or use train.optimizer=adamw"):
        _config(**{"train.optimizer": "muon", "engine.zero_stage": 2, **setting})


def test_learning_rate_warms_up_then_falls_as_a_cosine():
    config = _config(**{"train.lr": 2.0, "train.warmup_ratio": 0.03}).train
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[:3] == pytest.approx([2 / 3, 4 / 3, 2.0])
    assert rates[3] == 2.0 and all(a > b for a, b in pairwise(rates[3:]))
    assert rates[99] == pytest.approx(1 + math.cos(math.pi * 96 / 97))
    constant = config.model_copy(update={"schedule": "constant"})
    assert [learning_rate(constant, s, 100) for s in (3, 50, 99)] == [2.0] * 3


def test_learning_rate_without_warmup():
    config = _config(**{"train.lr": 1.0, "train.warmup_ratio": 0}).train
    assert learning_rate(config, 0, 1) == 1.0


def test_seeds_differ_by_step_rank_and_place():
    seeds = {
        mixed_seed(0, step, rank, place) for step in range(20) for rank in range(4) for place in range(4)
    }
    assert len(seeds) == 320 and all(0 <= s < 2**63 for s in seeds)
    assert mixed_seed(0, 1) == mixed_seed(0, 1)
