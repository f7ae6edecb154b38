"""Steps of the training engine on a batch in memory, for what is measured around them."""

import time
from typing import Any

import torch

from pipelines.bench.samples import bench_batch, bench_tokenizer
from pipelines.config import Config
from pipelines.models.job_model import make_model
from pipelines.train.engine.deepspeed_private import whole_count
from pipelines.train.engine.engine import Engine
from pipelines.train.engine.step import StepResult


class EngineSteps:
    """An engine with the same micro-batch again and again.

    Args:
        config: what the engine gets; ``scale.workers`` must be the number of ranks.
        length: steps of the whole run, for the learning rate.

    Attributes:
        engine: the engine.
    """

    def __init__(self, config: Config, length: int = 1000) -> None:
        tokenizer = bench_tokenizer(config)
        threads = max(1, int(config.scale.cpus_per_worker))
        self.engine = Engine(config, lambda: make_model(config, tokenizer)[0], length, threads)
        batch = bench_batch(config, tokenizer, config.micro_batch)
        self._batches = [batch] * self.engine.accumulation
        self._step = 0

    def step(self) -> tuple[float, StepResult]:
        """One optimizer step: its seconds, and its result."""
        started = time.perf_counter()
        result = self.engine.train_step(self._step, self._batches, self.engine.config.train.global_batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._step += 1
        return time.perf_counter() - started, result

    @property
    def done(self) -> int:
        """Steps so far."""
        return self._step

    def parameters(self) -> dict[str, int]:
        """Their number, and how many of them are trained."""
        sizes: list[tuple[int, Any]] = [
            (whole_count(p), p.requires_grad) for p in self.engine.model.parameters()
        ]
        return {
            "parameters": sum(n for n, _ in sizes),
            "trained_parameters": sum(n for n, trained in sizes if trained),
        }


def alone(config: Config, accumulation: int = 1, batch: int | None = None) -> Config:
    """The preset for one worker: a micro-batch of its own size, ``accumulation`` of them a step."""
    micro = batch or config.micro_batch
    values = config.plain()
    values["train"] |= {"micro_batch": micro, "global_batch": micro * accumulation}
    values["scale"] |= {"workers": 1}
    return Config.model_validate(values)
