"""How the positions of a step fall to workers and micro-batches; whether they do is checked here alone."""

from unigeoseg.errors import UserError


def positions_per_worker(batch: int, world: int, said: str | None = None) -> int:
    """Positions of one worker in one step.

    Args:
        batch: positions of a step, all workers together.
        world: number of workers.
        said: the number of workers in the words of who gave it; default: ``world size N``.

    Raises:
        UserError: the batch does not divide, with what does.
    """
    said = said or f"world size {world}"
    if world < 1:
        raise UserError(f"{said}: there must be at least one worker")
    if world > batch:
        raise UserError(
            f"{said} is larger than train.global_batch={batch}, so some workers would have nothing; use at "
            f"most {batch} workers or train.global_batch={world}"
        )
    if batch % world:
        lower, upper = batch // world * world, -(-batch // world) * world
        raise UserError(
            f"train.global_batch={batch} cannot be split over {said}; use {lower} or {upper}, or a number of "
            f"workers of {_divisors(batch)}"
        )
    return batch // world


def micro_batches(
    batch: int, world: int, micro: int | None, planned: int | None = None, said: str | None = None
) -> int:
    """Micro-batches that a worker runs in one step.

    Args:
        batch: positions of a step, all workers together.
        world: number of workers.
        micro: positions of a micro-batch; ``None``: all that a worker has, and of fewer workers than planned
            no more than then: what a device can hold does not grow when another is lost.
        planned: number of workers, the most; ``None``: these.
        said: as for :func:`positions_per_worker`.

    Raises:
        UserError: the batch cannot be split over the workers in whole micro-batches.
    """
    own = positions_per_worker(batch, world, said)
    if micro and own % micro:
        raise UserError(
            f"train.micro_batch={micro} does not divide the {own} positions of a worker (train.global_batch="
            f"{batch} over {said or f'world size {world}'}); use one of {_divisors(own)}"
        )
    if micro:
        return own // micro
    most = max(1, batch // max(world, planned or world))
    return next(n for n in _divisors(own) if own // n <= most)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
