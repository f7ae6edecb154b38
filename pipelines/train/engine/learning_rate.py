"""The learning rate as a function of the step number alone."""

import math

from pipelines.config.training import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Rate of step ``step`` (from 0) out of ``steps``: linear warm-up, then cosine to 0 or constant.

    The warm-up has ``ceil(warmup_ratio * steps)`` steps and its last one runs at the full rate; the cosine
    falls over the steps that remain, as in ``transformers.get_cosine_schedule_with_warmup``.
    """
    warmup = math.ceil(config.warmup_ratio * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    progress = (step - warmup) / max(1, steps - warmup)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
