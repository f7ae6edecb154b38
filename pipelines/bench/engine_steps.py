"""Steps of the training engine on a batch in memory, for what is measured around them."""

import time
from typing import Any

import torch
import torch.distributed as dist

from pipelines.bench.samples import bench_batch, bench_tokenizer
from pipelines.config import Config
from pipelines.models.job_model import make_model
from pipelines.train.engine.allocator import keep_freed_memory
from pipelines.train.engine.deepspeed_private import whole_count
from pipelines.train.engine.engine import Engine
from pipelines.train.engine.step import StepResult
from unigeoseg.samples.batch import Batch


class EngineSteps:
    """An engine with the same micro-batch again and again.

    Args:
        config: what the engine gets; ``scale.workers`` must be the number of ranks.
        length: steps of the whole run, for the learning rate.
        instructions: of each image.

    Attributes:
        engine: the engine.
        batch: the micro-batch.
    """

    batch: Batch

    def __init__(self, config: Config, length: int = 1000, instructions: int = 1) -> None:
        self._config, self._instructions = config, instructions
        self._tokenizer = tokenizer = bench_tokenizer(config)
        threads = max(1, int(config.scale.cpus_per_worker))
        if not torch.cuda.is_available():
            keep_freed_memory()  # as the training loop does
        self.engine = Engine(config, lambda: make_model(config, tokenizer)[0], length, threads)
        self._step = 0
        self.hold(config.micro_batch)

    def hold(self, images: int) -> None:
        """Takes micro-batches of so many images from now on."""
        self.batch = bench_batch(self._config, self._tokenizer, images, instructions=self._instructions)

    def step(self) -> tuple[float, StepResult]:
        """One optimizer step: its seconds, and its result."""
        times = self.engine.accumulation
        count = len(self.batch) * times * dist.get_world_size()
        started = time.perf_counter()
        result = self.engine.train_step(self._step, [self.batch] * times, count, following=lambda: self.batch)
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


def alone(config: Config, accumulation: int = 1, batch: int | None = None, workers: int = 1) -> Config:
    """The preset for one worker, or so many, on the devices that this machine has.

    A step is ``accumulation`` micro-batches of ``batch`` positions, or as many as the preset's.
    """
    micro = batch or config.micro_batch
    values = config.plain()
    values["train"] |= {"micro_batch": micro, "global_batch": micro * accumulation * workers}
    values["scale"] |= {"workers": workers}
    if not torch.cuda.is_available():
        values["scale"] |= {"gpus_per_worker": 0}
    return Config.model_validate(values)
