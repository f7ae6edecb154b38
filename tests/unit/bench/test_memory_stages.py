"""Stages that an optimizer does not take are refused before anything runs."""

import pytest

from pipelines.bench import memory
from pipelines.config import Config
from tests.train_runs import tiny_values
from unigeoseg.errors import UserError


@pytest.fixture
def asked(monkeypatch):
    found = []

    def noted(case, workers):
        found.append(case.engine.zero_stage)
        return {"bytes": 1, "samples": 1, "tokens": 1}

    monkeypatch.setattr(memory, "_run", noted)
    return found


@pytest.mark.parametrize(("optimizer", "stages"), [("adamw", [0, 1, 2, 3]), ("muon", [0, 1, 2])])
def test_all_that_the_optimizer_takes_are_measured(asked, optimizer, stages):
    config = Config.model_validate(tiny_values(**{"train.optimizer": optimizer}))
    found = memory.bench_memory(config, checkpointing=[False])
    assert asked == stages == [row["stage"] for row in found["rows"]]


def test_a_stage_that_it_does_not_take(asked):
    config = Config.model_validate(tiny_values(**{"train.optimizer": "muon"}))
    with pytest.raises(UserError, match=r"ZeRO stage 3: .*muon turns whole matrices"):
        memory.bench_memory(config, [3])
    assert asked == []
