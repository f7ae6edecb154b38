"""One optimizer step under DeepSpeed, the same in a plain process, under torchrun and in a Ray Train worker.

The model returns losses as *sums over instructions*. DeepSpeed averages gradients over ranks and divides by
the accumulation steps, so a micro-batch's loss is scaled by ``world * accumulation / count``, where ``count``
is the number of instructions of the whole global batch: the gradient is that of the mean over the global
batch, however it is split.

Dropout and loss points are drawn from (seed, step), not from a running generator: a replayed step is the same
step.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelines.config import Config
from pipelines.train.engine.ahead import Ahead, encodes_ahead, looks_ahead
from pipelines.train.engine.clock import StepClock, event_of
from pipelines.train.engine.compiling import compile_model
from pipelines.train.engine.deepspeed_config import accumulation_steps, deepspeed_config
from pipelines.train.engine.deepspeed_private import (
    cut_parameters,
    drop_gradient,
    import_deepspeed,
    publish_weights,
    whole_shape,
)
from pipelines.train.engine.distributed import (
    ensure_process_group,
    gathered,
    leave_process_group,
    local_device,
    mixed_seed,
)
from pipelines.train.engine.learning_rate import learning_rate
from pipelines.train.engine.optimizer import make_optimizer
from pipelines.train.engine.pieces import WEIGHT, Piece, held_pieces, own_pieces, set_steps
from pipelines.train.engine.shards import ShardReader
from pipelines.train.engine.spans import spans
from pipelines.train.engine.step import NonFiniteLossError, StepResult, StepTotals
from unigeoseg.losses.terms import Losses
from unigeoseg.model import UniGeoSeg
from unigeoseg.modules.dropout import SampleDropout, draw_dropout
from unigeoseg.samples.batch import Batch


class _LossModule(nn.Module):
    """What DeepSpeed wraps: returns the tensor to differentiate, keeps the rest of the losses aside."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.last: Losses | None = None
        self._dropouts = [module for module in model.modules() if isinstance(module, SampleDropout)]

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        seed, length = generator.initial_seed(), batch.input_ids.shape[1]
        draw_dropout(self._dropouts, batch.keys, length, batch.packing, seed)
        self.last = self.model(batch, generator)
        return self.last.total


class Engine:
    """A model with its optimizer, sharded by DeepSpeed.

    Args:
        config: the job.
        build_model: makes the model; called with the same random state on every rank.
        steps: length of the run in optimizer steps (for the learning rate).
        threads: CPU threads of this process; ``None`` leaves the setting.
    """

    def __init__(
        self, config: Config, build_model: Callable[[], nn.Module], steps: int, threads: int | None = None
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.config, self.steps = config, steps
        deepspeed = import_deepspeed()
        self._own_group = ensure_process_group()
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = local_device()
        self.accumulation = accumulation_steps(config, self.world)
        torch.manual_seed(config.seed)
        model = build_model()
        enable = getattr(model, "enable_activation_checkpointing", None)
        if config.train.activation_checkpointing and callable(enable):
            enable()
        if config.train.compile and isinstance(model, UniGeoSeg):
            compile_model(model, config.train.compile_backend, self.device)
        self._wrapped = _LossModule(model)
        optimizer, self._rate_scales = make_optimizer(
            model, config.train, fused=not config.engine.offload_optimizer
        )
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        settings = deepspeed_config(config, self.world, trained)
        if config.engine.zero_stage == 3:
            narrow = config.train.precision == "bf16"
            cut_parameters(self._wrapped, settings, torch.bfloat16 if narrow else torch.float32)
        self._engine: Any = deepspeed.initialize(
            model=self._wrapped,
            optimizer=optimizer,
            config=settings,
            dist_init_required=False,
        )[0]
        optimizer.place(spans(self._engine, model, config.engine.zero_stage, self.rank, (0, 1)))
        self._engine.train()
        self.looks_ahead = looks_ahead(config, self.device.type == "cuda")
        self._ahead = self._make_ahead(model)

    def _make_ahead(self, model: nn.Module) -> Ahead:
        stage, gpu = self.config.engine.zero_stage, self.device.type == "cuda"
        ahead = encodes_ahead(self.config, stage, gpu)
        encode = model.vision if ahead and isinstance(model, UniGeoSeg) else None
        # The forward pass has it of DeepSpeed, see deepspeed_config.
        half = self.config.train.precision == "bf16" and not stage
        cast = partial(torch.autocast, self.device.type, torch.bfloat16) if half else nullcontext
        return Ahead(self.device, encode, cast)

    @property
    def model(self) -> nn.Module:
        """The model itself (under ZeRO-3 its parameters are partitioned)."""
        return self._wrapped.model

    def train_step(
        self,
        step: int,
        micro_batches: Sequence[Batch],
        instruction_count: int,
        wait: float = 0.0,
        by_module: bool = False,
        tell: Callable[[], Sequence[int]] = tuple,
        following: Callable[[], Batch | None] | None = None,
    ) -> StepResult:
        """One optimizer step; a collective call.

        Args:
            step: number of the step, from 0; decides learning rate and randomness.
            micro_batches: this rank's, ``accumulation`` of them.
            instruction_count: instructions of the global batch, all ranks together.
            wait: seconds this rank waited for the data, for the record.
            by_module: also measure the gradient norm of each of the model's modules; every parameter's
                gradient is gathered for it.
            tell: asked once, after the forward passes, for whole numbers of this rank, as many on each; the
                result has their sums over the ranks. They travel with the losses: no message of their own.
            following: asked once, after the last backward pass is queued, for the first micro-batch of the
                step after this one; the time that it takes is a wait for data.

        Raises:
            NonFiniteLossError: on every rank, when a loss or the gradient norm is not finite. Weights and
                optimizer state are as before the step, and the next step may follow.
        """
        if len(micro_batches) != self.accumulation:
            raise ValueError(f"step {step}: {len(micro_batches)} micro-batches, expected {self.accumulation}")
        rate = learning_rate(self.config.train, step, self.steps)
        for group, factor in zip(self._engine.optimizer.param_groups, self._rate_scales, strict=True):
            group["lr"] = rate * factor
        totals, clock = StepTotals(), StepClock(wait, event_of(self.device))
        scale = self.world * self.accumulation / instruction_count
        for place, batch in enumerate(micro_batches):
            if place:  # closes the micro-step before; only the last one's updates the weights
                self._engine.step()
            total = self._forward(step, place, batch, totals, clock)
            scaled = total * scale
            if place == self.accumulation - 1:
                reduced = totals.reduced(self.device, tell())
                scaled = reduced.scaled(total, scale)  # no gradient where a sum is no number: see _update
            with clock.part("backward"):
                self._engine.backward(scaled)
            if self.looks_ahead:
                self._look_ahead(micro_batches[place + 1 :], following, clock)
        norms = self._module_norms() if by_module else {}
        with clock.part("optimizer"):
            norm = self._update()
        result = reduced.result(step, rate, norm, norms, clock.seconds())
        if not result.finite:
            what = "gradient norm" if reduced.finite else "loss"
            raise NonFiniteLossError(result, what, self.gather(totals.by_batch))
        return result

    def _look_ahead(
        self, left: Sequence[Batch], following: Callable[[], Batch | None] | None, clock: StepClock
    ) -> None:
        after = left[0] if left else None
        if not left and following is not None:
            began = time.perf_counter()
            after = following()
            clock.waited(time.perf_counter() - began)
        if after is not None:
            self._ahead.start(after)

    def _forward(self, step: int, place: int, batch: Batch, totals: StepTotals, clock: StepClock) -> Tensor:
        seed = self.config.seed
        torch.manual_seed(mixed_seed(seed, step, self.rank, place))
        points = torch.Generator().manual_seed(mixed_seed(seed, step))
        with clock.part("forward"):
            total = self._engine(self._ahead.take(batch), points)
        self._ahead.forward_queued()
        losses = self._wrapped.last
        assert losses is not None
        totals.add(losses, batch)
        return total

    def _update(self) -> float:
        """Updates the weights unless the gradient is not finite; returns its norm before clipping.

        DeepSpeed's ZeRO optimizers look at the norm themselves and drop such a gradient. Its stage 0 does
        not, and clips without keeping the norm.
        """
        norm = None
        if not self.config.engine.zero_stage:
            found = [p.grad for p in self.model.parameters() if p.grad is not None]
            norm = nn.utils.get_total_norm(found)
            if not bool(torch.isfinite(norm)):
                drop_gradient(self._engine)
                return float(norm)
        self._engine.step()
        norm = self._engine.get_global_grad_norm() if norm is None else norm
        return float(norm or 0.0)

    def _module_norms(self) -> dict[str, float]:
        """Norm of the reduced gradient of each module of the model, before clipping; a collective call."""
        from deepspeed.utils import safe_get_full_grad

        squares: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            gradient = safe_get_full_grad(parameter) if parameter.requires_grad else None
            if gradient is not None:
                module = name.partition(".")[0]
                squares[module] = squares.get(module, 0.0) + gradient.detach().double().square().sum()
        return {module: math.sqrt(float(square)) for module, square in squares.items()}

    def own_pieces(self) -> list[Piece]:
        """What this rank has to write of weights and optimizer state: all ranks' pieces make up the whole."""
        return own_pieces(self._engine, self.model, self.config.engine.zero_stage, self.rank, self.world)

    def held_pieces(self) -> list[Piece]:
        """What this rank has to be given of them."""
        return held_pieces(self._engine, self.model, self.config.engine.zero_stage, self.rank)

    def trained_shapes(self) -> dict[str, tuple[int, ...]]:
        """Trained parameters by name, each with its whole shape."""
        return {name: whole_shape(p) for name, p in self.model.named_parameters() if p.requires_grad}

    def tied_names(self) -> dict[str, str]:
        """Second names of trained parameters that the model uses in several places, each with the first."""
        first: dict[int, str] = {}
        return {
            name: first[id(p)]
            for name, p in self.model.named_parameters(remove_duplicate=False)
            if p.requires_grad and first.setdefault(id(p), name) != name
        }

    def restore(self, reader: ShardReader, pieces: list[Piece]) -> None:
        """Sets weights and optimizer state from a checkpoint; a collective call.

        Args:
            reader: of the checkpoint's shards.
            pieces: from :meth:`held_pieces`.
        """
        reader.restore(pieces)
        set_steps(pieces, reader.steps)
        publish_weights(self._engine, self.config.engine.zero_stage)

    def restore_moments(self, reader: ShardReader) -> int:
        """Sets the optimizer's state alone, of parameters that the checkpoint has in the same shape.

        Returns:
            How many parameters that are, of those that this rank holds a part of.

        Raises:
            UserError: the checkpoint lacks a moment, having been written with another optimizer.
        """
        mine = self.trained_shapes()
        known = [p for p in self.held_pieces() if reader.shapes.get(p.name) == mine.get(p.name, ())]
        reader.restore([replace(p, values={k: v for k, v in p.values.items() if k != WEIGHT}) for p in known])
        set_steps(known, reader.steps)
        return len({p.name for p in known})

    def full_state(self) -> dict[str, Tensor]:
        """The whole model's state in float32 on the CPU, gathered from all ranks; a collective call.

        Trained weights come from the optimizer's float32 masters. Only rank 0 gets the content; others get an
        empty dictionary.
        """
        from deepspeed.runtime.zero import GatheredParameters
        from deepspeed.utils import safe_get_full_fp32_param

        stage = self.config.engine.zero_stage
        state: dict[str, Tensor] = {}
        wanted = set(self.model.state_dict().keys())
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            if stage and parameter.requires_grad:
                value = safe_get_full_fp32_param(parameter)
            else:
                with GatheredParameters([parameter], enabled=stage == 3):
                    value = parameter.detach().clone()
            if self.rank == 0 and name in wanted:
                state[name] = value.detach().float().cpu().clone()
        if self.rank == 0:
            for name, buffer in self.model.named_buffers():
                if name in wanted:
                    value = buffer.detach().cpu().clone()
                    state[name] = value.float() if value.is_floating_point() else value
        return state

    def close(self) -> None:
        """Ends the engine, and leaves the process group with the other ranks if this engine made it."""
        self._engine.destroy()  # its hooks would hold it for good, and it the group's threads
        self._wrapped.last = None
        if self._own_group and dist.is_initialized():
            dist.barrier()
            leave_process_group()

    def barrier(self) -> None:
        """Waits for all ranks."""
        dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Every rank's ``value``, in rank order, on every rank."""
        return gathered(value)
