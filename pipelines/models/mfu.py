"""Model FLOPs utilisation: what the model's arithmetic makes of the devices' peak."""

from functools import cache

import torch

from pipelines.config import Config
from pipelines.models.device import peak_flops


class Utilisation:
    """MFU of a run, where it can be told: bfloat16 on a GPU whose peak is known.

    Args:
        config: of the job.
        world: devices that share the work.
        gpu: name of the device; by default that of this process, if it has one.
    """

    def __init__(self, config: Config, world: int, gpu: str | None = None) -> None:
        if gpu is None and torch.cuda.is_available():
            gpu = torch.cuda.get_device_name()
        known = gpu is not None and config.train.precision == "bf16"
        peak = peak_flops(gpu) if gpu is not None and known else None
        self._peak = None if peak is None else peak * world
        self._config = config

    def __call__(self, images: int, instructions: int, tokens: int, seconds: float) -> float | None:
        """Share of the peak; ``None`` where the peak is unknown.

        Args:
            images: that went through the encoder in ``seconds``, all ranks together.
            instructions: likewise.
            tokens: that the language model computed for them: without padding, and what sequences of an
                image have in common once.
            seconds: of wall clock.
        """
        if self._peak is None or not instructions or not seconds:
            return None
        # Attention is the one part that is not linear in the tokens; steps of 16 keep the counting rare.
        length = max(16, round(tokens / instructions / 16) * 16)
        image, instruction = flops(self._config, length)
        return (images * image + instructions * instruction) / seconds / self._peak


@cache
def _flops_of(text: str, tokens: int) -> tuple[int, int]:
    from pipelines.models.info import flops_of_parts

    return flops_of_parts(Config.model_validate_json(text), tokens)


def flops(config: Config, tokens: int) -> tuple[int, int]:
    """Of an image and of an instruction at ``tokens``, forward and backward; counted once a process."""
    return _flops_of(config.model_dump_json(), tokens)
