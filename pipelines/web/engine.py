"""What a service says of its model, wherever that runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """The model and what it may take.

    Attributes:
        model: by reference.
        device: such as ``cuda:1``; ``None``: a GPU where there is one.
        most_waiting: instructions in the queue; more are answered with 503.
        cache_bytes: of what was seen of pictures, in each process that holds the model.
    """

    model: str
    device: str | None = None
    most_waiting: int = 32
    cache_bytes: int = 1 << 30
