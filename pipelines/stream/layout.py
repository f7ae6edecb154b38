"""Which positions a worker has, cut into micro-batches and blocks. Pure arithmetic."""

from dataclasses import dataclass

from pipelines.config import Config
from pipelines.config.batch import micro_batches
from unigeoseg.errors import UserError


@dataclass(frozen=True)
class Micro:
    """One micro-batch: ``count`` positions from ``position``, all of one step.

    Attributes:
        step: optimizer step.
        micro: its number within the step, from 0, on this worker.
        position: first plan position.
        count: positions.
    """

    step: int
    micro: int
    position: int
    count: int


@dataclass(frozen=True)
class Layout:
    """A worker's micro-batches of the steps [start, stop), in order.

    Attributes:
        rank: of the worker.
        per_step: its positions in a step.
        micro_batch: positions in a micro-batch.
        batch_size: positions in a step, all workers together.
        start: first step.
        stop: one past the last step.
        block_micros: micro-batches in a block, the unit of reading.
    """

    rank: int
    per_step: int
    micro_batch: int
    batch_size: int
    start: int
    stop: int
    block_micros: int

    @classmethod
    def of(cls, config: Config, rank: int, world: int, start: int, stop: int) -> "Layout":
        """The layout that a configuration gives worker ``rank`` of ``world``.

        Raises:
            UserError: batch and workers do not divide.
        """
        batch, micro = config.train.global_batch, config.train.given_micro_batch
        count = micro_batches(batch, world, micro, config.scale.workers)
        per_step = config.train.global_batch // world
        micro = per_step // count
        if not 0 <= rank < world:
            raise UserError(f"rank {rank} is not one of the {world} workers (0 to {world - 1})")
        block = max(1, config.data.block_positions // micro)
        return cls(rank, per_step, micro, config.train.global_batch, start, stop, block)

    @property
    def world(self) -> int:
        """Number of workers."""
        return self.batch_size // self.per_step

    @property
    def micros_per_step(self) -> int:
        """Micro-batches of this worker in a step."""
        return self.per_step // self.micro_batch

    @property
    def micros(self) -> int:
        """Micro-batches altogether."""
        return max(0, self.stop - self.start) * self.micros_per_step

    @property
    def blocks(self) -> int:
        """Blocks altogether; the last may be short."""
        return -(-self.micros // self.block_micros)

    def block(self, number: int) -> list[Micro]:
        """The micro-batches of a block."""
        first = number * self.block_micros
        return [self._micro(i) for i in range(first, min(first + self.block_micros, self.micros))]

    def _micro(self, number: int) -> Micro:
        step, micro = divmod(number, self.micros_per_step)
        step += self.start
        position = step * self.batch_size + self.rank * self.per_step + micro * self.micro_batch
        return Micro(step, micro, position, self.micro_batch)
