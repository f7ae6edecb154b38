"""Ray for one job: the cluster that is there, or a local one for as long as the job runs."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from pipelines.config import Config
from unigeoseg.errors import UserError


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
    # Says at each start that token authentication is on, which it should be.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
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
    finally:
        ray.shutdown()


def _end_on_sigterm() -> None:
    """Lets SIGTERM unwind the driver, so that the run is recorded as killed (Ray's own handler aborts)."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def wanted_resources(config: Config) -> dict[str, float]:
    """What a job occupies in the cluster while it trains."""
    scale = config.scale
    wanted = {"CPU": scale.workers * scale.cpus_per_worker, "GPU": scale.workers * scale.gpus_per_worker}
    if config.data.decode == "actors":
        wanted["CPU"] += 1  # at least one decoding actor
    for name, amount in scale.resources.items():
        wanted[name] = scale.workers * amount
    return {name: amount for name, amount in wanted.items() if amount > 0}


def check_resources(config: Config) -> None:
    """Compares the job's wishes with the cluster, so that it does not wait for ever.

    Raises:
        UserError: says what is asked and what is there.
    """
    there = ray.cluster_resources()
    for name, amount in wanted_resources(config).items():
        if there.get(name, 0.0) < amount:
            kind = {"CPU": "CPUs", "GPU": "GPUs"}.get(name, name)
            extra = " and one for decoding" if name == "CPU" and config.data.decode == "actors" else ""
            raise UserError(
                f"too few {kind}: the job asks for {amount:g} ({config.scale.workers} workers{extra}), the "
                f"cluster has {there.get(name, 0.0):g}; lower scale.workers or what a worker takes "
                "(scale.cpus_per_worker, scale.gpus_per_worker, scale.resources), or add nodes"
            )
