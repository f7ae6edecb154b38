"""Times the parts of a forward pass by hooks: each interval between two events belongs to one part."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipelines.models.device import synchronize

#: In the order of a step.
PARTS = (
    "vision",
    "connector",
    "embed+TATE",
    "LLM",
    "LKM+query",
    "pixel decoder",
    "mask decoder",
    "losses",
    "backward",
    "optimizer",
)


class Stopwatch:
    """Seconds by part since the last :meth:`start`.

    Attributes:
        seconds: by part.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}
        self._last = 0.0

    def start(self) -> None:
        """Forgets everything and starts to count."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._last = self._now()

    def lap(self, part: str) -> None:
        """Gives the time since the last event to ``part``."""
        now = self._now()
        self.seconds[part] += now - self._last
        self._last = now

    def watch(self, model: nn.Module) -> Callable[[], None]:
        """Hooks a model's modules; returns what takes the hooks off.

        What lies between two modules is given to the part that it prepares: the embedding gather and TATE to
        "embed+TATE", everything after the mask decoder to "losses".
        """
        before = {"connector": "embed+TATE", "language": "embed+TATE", "pixel_decoder": "LKM+query"}
        after = {
            "vision": "vision",
            "connector": "connector",
            "tate": "embed+TATE",
            "language": "LLM",
            "query": "LKM+query",
            "pixel_decoder": "pixel decoder",
            "mask_decoder": "mask decoder",
        }
        handles = [model.register_forward_hook(self._hook("losses"))]
        for name, module in model.named_children():
            if name in before:
                handles.append(module.register_forward_pre_hook(self._hook(before[name])))
            if name in after:
                handles.append(module.register_forward_hook(self._hook(after[name])))

        def release() -> None:
            for handle in handles:
                handle.remove()

        return release

    def _hook(self, part: str) -> Callable[..., None]:
        def event(*_: Any) -> None:
            self.lap(part)

        return event

    def _now(self) -> float:
        synchronize(self._device)
        return time.perf_counter()
