"""The next micro-batch: on the device, and through a frozen encoder, while the backward pass is under way.

A GPU works through what is queued on a stream in order. What is queued on a second one fills the gaps of the
first: the copies from the host take no time of the model's, and the encoder's kernels run beside the backward
pass, the reduction over the ranks and the update. Weights that do not train make it the same encoder before
and after the update.
"""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from pipelines.config import Config
from unigeoseg.samples.batch import Batch

#: Gives the features of images; of no autograd.
Encode = Callable[[Tensor], list[Tensor]]


def looks_ahead(config: Config, gpu: bool) -> bool:
    """Whether a run brings its next micro-batch ahead: as it says, else on a GPU."""
    return gpu if config.engine.look_ahead is None else config.engine.look_ahead


def encodes_ahead(config: Config, stage: int, gpu: bool) -> bool:
    """Whether it also goes through the encoder: one that is frozen, and whole on every rank.

    Stage 3 of ZeRO cuts frozen weights too, and gathers them in the order of the forward pass.
    """
    return config.model.vision.frozen and stage < 3 and looks_ahead(config, gpu)


class Ahead:
    """Holds one micro-batch at the most.

    Args:
        device: of the model.
        encode: the frozen encoder; ``None``: see :func:`encodes_ahead`.
        autocast: what the forward pass computes in; made anew for each use.
    """

    def __init__(
        self,
        device: torch.device,
        encode: Encode | None,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._device, self._encode, self._autocast = device, encode, autocast
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._forward = torch.cuda.Event() if self._stream else None
        self._source: Batch | None = None
        self._ready: Batch | None = None

    def forward_queued(self) -> None:
        """Called between forward and backward pass: what is started from here on comes after the first.

        So it meets the weights and buffers that the model's own stream has made, and not the work to come.
        """
        if self._forward is not None:
            self._forward.record(torch.cuda.current_stream(self._device))

    def start(self, batch: Batch) -> None:
        """Queues what :meth:`take` then gives for the same ``batch``; returns at once on a GPU."""
        self._source = batch
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            if self._stream is not None and self._forward is not None:
                self._stream.wait_event(self._forward)
            ready = (batch.pinned() if self._stream else batch).to(self._device)
            if self._encode is not None:
                with torch.no_grad(), self._autocast():
                    ready = dataclasses.replace(ready, features=self._encode(ready.images))
            self._ready = ready

    def take(self, batch: Batch) -> Batch:
        """``batch`` on the device: what was started for it, or made now."""
        ready, source = self._ready, self._source
        self._ready = self._source = None
        if ready is None or source is not batch:
            return batch.to(self._device)
        if self._stream is not None:
            here = torch.cuda.current_stream(self._device)
            here.wait_stream(self._stream)
            for tensor in ready.tensors():  # of the other stream, which would use their memory again
                tensor.record_stream(here)
        return ready
