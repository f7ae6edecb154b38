"""Python's garbage collector, kept from looking for garbage where there is none."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Within it nothing is collected, nor at the end of the process.

    Importing PyTorch's and transformers' parts makes a million objects that stay. The collector would look
    through them again and again, for one second while they are imported and for another as Python ends.
    """
    atexit.register(gc.freeze)
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
