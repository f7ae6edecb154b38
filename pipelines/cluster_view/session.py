"""Ray for one job: the cluster that is there, or a local one for as long as the job runs."""

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from pipelines.cluster_view.autoscaler import autoscaler_could
from pipelines.cluster_view.ending import end_ray
from pipelines.cluster_view.ray_private import AUTHENTICATION_LOGGER
from pipelines.config import Config
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)


#: Signals that told this process to end.
_received: list[int] = []


@contextmanager
def ray_session(config: Config) -> Iterator[None]:
    """Connects to Ray: the process's own connection, else ``RAY_ADDRESS``, else a local cluster.

    A cluster started here is stopped at the end. Its dashboard stays off: nobody is there to look at it, and
    it would cost a process or two of memory.

    Raises:
        UserError: ``RAY_ADDRESS`` does not answer, or the cluster is smaller than ``config`` asks.
    """
    if ray.is_initialized():
        check_resources(config)
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    logging.getLogger(AUTHENTICATION_LOGGER).setLevel(logging.ERROR)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        else:
            ray.init(
                address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING
            )
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster answers at RAY_ADDRESS={address}: {error}; start it, or unset RAY_ADDRESS to "
            "run on this machine alone"
        ) from error
    _end_on_sigterm()
    try:
        check_resources(config)
        yield
    except SystemExit as error:
        # Ray's waiting calls replace an exit's status with 1.
        raise SystemExit(128 + _received[-1] if _received else error.code) from error
    finally:
        end_ray()


@contextmanager
def connected(least: int, most: int, option: str) -> Iterator[None]:
    """Connects to the cluster that ``RAY_ADDRESS`` names, else to a local one; ends that after.

    A process that is connected stays so.

    Args:
        least: CPUs that a local cluster must have.
        most: and that the work could use; this machine's are taken where it has fewer.
        option: of the command line that asks for them, for the message.

    Raises:
        UserError: this machine has fewer than ``least``.
    """
    if ray.is_initialized():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="ugs-", ignore_cleanup_errors=True) as folder:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False, logging_level=logging.WARNING)
        else:
            available = os.cpu_count() or 1
            if least > available:
                raise UserError(
                    f"{option} wants {least} CPUs, and this machine has {available}: ask for fewer"
                )
            ray.init(
                address="local",
                num_cpus=min(most, available),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                _temp_dir=folder,  # its sockets need a short path
            )
        try:
            yield
        finally:
            end_ray()


def _end_on_sigterm() -> None:
    """Lets SIGTERM unwind the driver, so that the run is recorded as killed (Ray's own handler aborts)."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)


def _terminated(number: int, frame: object) -> None:
    _received.append(number)
    raise SystemExit(128 + number)


def worker_resources(config: Config) -> dict[str, float]:
    """What one training worker occupies."""
    scale = config.scale
    wanted = {"CPU": scale.cpus_per_worker, "GPU": scale.gpus_per_worker, **scale.resources}
    return {name: amount for name, amount in wanted.items() if amount > 0}


def wanted_resources(config: Config) -> dict[str, float]:
    """What a job occupies in the cluster while it trains, with the fewest workers that it may have."""
    workers = min(config.world_sizes(), default=config.scale.workers)
    wanted = {name: workers * amount for name, amount in worker_resources(config).items()}
    if config.data.decode == "actors":
        wanted["CPU"] = wanted.get("CPU", 0.0) + workers  # each has decoding actors of its own
    return wanted


def wanted_bundles(config: Config) -> list[dict[str, float]]:
    """The same as what has to be free on one node each."""
    workers = min(config.world_sizes(), default=config.scale.workers)
    decoding = [{"CPU": 1.0}] * workers if config.data.decode == "actors" else []
    return [worker_resources(config)] * workers + decoding


def check_resources(config: Config) -> None:
    """Compares the job's wishes with the cluster, so that it does not wait for ever.

    Raises:
        UserError: says what is asked, what is there, and whether autoscaling could bring it.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    problem = shortage(config, nodes, autoscaler_could)
    if problem is not None and problem.bearable:
        logger.warning("%s", problem.text)
    elif problem is not None:
        raise UserError(problem.text)


@dataclass(frozen=True)
class Shortage:
    """What is missing in words, and whether the cluster can grow to what is asked."""

    text: str
    bearable: bool


def shortage(
    config: Config,
    nodes: Sequence[dict[str, float]],
    could_grow: Callable[[list[dict[str, float]]], bool | None],
) -> Shortage | None:
    """What a cluster lacks for a job; ``None`` when it has enough.

    Args:
        config: the job.
        nodes: resources of each living node.
        could_grow: whether the cluster can grow to hold bundles of resources; ``None`` where nothing makes it
            grow. Asked only when something is missing.
    """
    each, workers = worker_resources(config), min(config.world_sizes(), default=config.scale.workers)
    missing = _missing(config, nodes, each, workers)
    if missing is None:
        return None
    could = could_grow(wanted_bundles(config))
    if could:
        return Shortage(f"{missing}; waiting for the autoscaler, which can bring what is missing", True)
    ways = "lower scale.workers or what a worker takes (scale.cpus_per_worker, scale.gpus_per_worker, "
    ways += "scale.resources), or add nodes"
    if could is None:
        return Shortage(f"{missing} and no autoscaler that could add nodes; {ways}", False)
    return Shortage(
        f"{missing}, and its autoscaler has no node groups that could bring what is missing within their "
        f"max_workers; {ways}",
        False,
    )


def _missing(
    config: Config, nodes: Sequence[dict[str, float]], each: dict[str, float], workers: int
) -> str | None:
    asked = f"({workers} workers of {_words(each)}"
    asked += ", one CPU for the decoding of each)" if config.data.decode == "actors" else ")"
    for name, amount in wanted_resources(config).items():
        there = sum(node.get(name, 0.0) for node in nodes)
        if there < amount:
            kind = {"CPU": "CPUs", "GPU": "GPUs"}.get(name, name)
            return f"too few {kind}: the job asks for {amount:g} {asked}, the cluster has {there:g}"
    places = sum(int(min(node.get(name, 0.0) // amount for name, amount in each.items())) for node in nodes)
    if places < workers:
        return (
            f"the job asks for {workers} workers of {_words(each)}, each on one node, and the {len(nodes)} "
            f"nodes have room for {places}"
        )
    return None


def _words(resources: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in resources.items())
