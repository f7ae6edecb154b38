"""A page or a service, from what the command line says to the end of the process."""

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.web.app import Setup, create_app
from pipelines.web.backend import ThreadBackend
from pipelines.web.listening import Address, listen, serve
from pipelines.web.metrics import Metrics
from unigeoseg.segmenter import load


@dataclass(frozen=True)
class Engine:
    """The model and what it may take.

    Attributes:
        model: by reference.
        device: such as ``cuda:1``; ``None``: a GPU where there is one.
        most_waiting: instructions in the queue; more are answered with 503.
        cache_bytes: of what was seen of pictures.
    """

    model: str
    device: str | None = None
    most_waiting: int = 32
    cache_bytes: int = 1 << 30


def launch(engine: Engine, setup: Setup, address: Address, told: Callable[[str], None]) -> None:
    """Loads the model and serves until the process is told to end.

    Args:
        engine: the model.
        setup: what is served beside it.
        address: to listen on.
        told: gets the address to open.

    Raises:
        UserError: something is not there, or the address cannot be listened on.
    """
    metrics = Metrics()
    backend = ThreadBackend(
        load(engine.model, engine.device), engine.model, engine.most_waiting, engine.cache_bytes, metrics
    )
    serve(listen(create_app(backend, setup, metrics), address), told)
