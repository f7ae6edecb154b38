"""A page or a service, from what the command line says to the end of the process."""

import math
from collections.abc import Callable

from pipelines.web.app import Setup, create_app
from pipelines.web.backend import ThreadBackend
from pipelines.web.engine import Engine
from pipelines.web.listening import Address, listen, serve
from pipelines.web.metrics import Metrics
from pipelines.web.replicas import Scale, replicas
from unigeoseg.segmenter import load


def launch(
    engine: Engine, setup: Setup, address: Address, told: Callable[[str], None], scale: Scale | None = None
) -> None:
    """Loads the model and serves until the process is told to end.

    Args:
        engine: the model.
        setup: what is served beside it.
        address: to listen on.
        told: gets the address to open.
        scale: replicas of Ray Serve; ``None``: the model is in this process.

    Raises:
        UserError: something is not there, or the address cannot be listened on.
    """
    metrics = Metrics()
    if scale is None:
        backend = ThreadBackend(
            load(engine.model, engine.device), engine.model, engine.most_waiting, engine.cache_bytes, metrics
        )
        serve(listen(create_app(backend, setup, metrics), address), told)
        return
    # Here, so that a process without Ray can serve by itself.
    from pipelines.cluster_view.session import connected

    fewest, most = (math.ceil(count * scale.cpus) for count in (scale.fewest, scale.most))
    with connected(fewest, most, "--replicas"), replicas(engine, scale, metrics) as served:
        serve(listen(create_app(served, setup, metrics), address), told)
