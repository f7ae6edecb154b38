"""How this process' allocator treats the memory that a training step frees on a CPU."""

import ctypes
from typing import Final

#: Of glibc's ``mallopt`` (malloc.h).
_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_THRESHOLD: Final = -3
_PAD_BYTES: Final = 64 * 1024**2
_MAPPED_FROM: Final = 1024**3
_NEVER: Final = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keeps what a step frees for the next one, which needs the same again.

    glibc gives large blocks back to the system at once and asks for them anew: of a step of the quickstart
    that is 15,000 page faults, a twelfth of its time. Where a step frees and takes blocks of many sizes (as
    activation checkpointing does) the process holds more than what lives at once: 1.3 GB of 0.7 in a test.
    In a thread other than the main one, as Ray Train calls the loop in, blocks over 64 MiB come and go yet.

    Returns:
        Whether the allocator could be told; it cannot where it is not glibc's.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wishes = ((_MMAP_THRESHOLD, _MAPPED_FROM), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _PAD_BYTES))
    return all(mallopt(name, value) for name, value in wishes)
