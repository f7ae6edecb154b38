"""What a GPU's allocator did, for PyTorch's memory viewer; it has no public name in PyTorch yet."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

#: Allocations and frees that are remembered; a step of the ``paper`` preset makes some ten thousand.
_EVENTS = 200_000


def ranks_own(file: Path) -> Path:
    """Where this rank writes, of several that were given the same file."""
    if dist.get_world_size() == 1:
        return file
    return file.with_stem(f"{file.stem}-rank-{dist.get_rank()}")


@contextmanager
def memory_history(file: Path | None) -> Iterator[None]:
    """Writes the history of the block to a file, also when it ends with an error.

    Args:
        file: a pickle for the viewer; ``None``: nothing is kept.
    """
    if file is None:
        yield
        return
    torch.cuda.memory._record_memory_history(max_entries=_EVENTS)
    try:
        yield
    finally:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.cuda.memory._dump_snapshot(str(file))
        torch.cuda.memory._record_memory_history(enabled=None)
