"""From plan positions to training batches: through Ray Data, or plainly in threads."""

from pipelines.config import Config
from pipelines.stream.stream import Stream, StreamItem, StreamStats, request_layout

__all__ = ["Stream", "StreamItem", "StreamStats", "open_stream"]


def open_stream(
    config: Config,
    store: str,
    tokenizer_path: str,
    rank: int = 0,
    world: int = 1,
    start_step: int = 0,
    stop_step: int | None = None,
) -> Stream:
    """A worker's micro-batches, in plan order, through Ray Data (Ray must be running).

    Args:
        config: of the run; ``data.decode`` says where reading and decoding happen.
        store: folder or ``s3://`` prefix.
        tokenizer_path: folder of the tokenizer, readable wherever decoding happens.
        rank: of this worker.
        world: number of workers.
        start_step: first step.
        stop_step: one past the last step; ``None``: the plan's end.

    Raises:
        UserError: the store, the steps or the world size do not fit; while iterating: storage stays out of
            reach, or no usable stand-in is found.
    """
    # Here, so that the plan and the plain stream can be used where importing Ray would only cost time.
    from pipelines.stream.assemble import Assembler
    from pipelines.stream.ray_stream import ray_arrivals

    assembler = Assembler(config, store, tokenizer_path)
    layout = request_layout(config, assembler.plan, rank, world, start_step, stop_step)
    arrivals = ray_arrivals(assembler, config, store, tokenizer_path, layout)
    return Stream(arrivals)
