"""What Ray Train adds to a step: the same engine and data in a plain process and in a Ray worker."""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch

from pipelines.bench.turns import Turns, serve_turns
from pipelines.config import Config
from pipelines.models.device import describe_machine
from pipelines.storage.background import in_background

_WARM_UP = 2


def bench_overhead(
    config: Config,
    steps: int = 3,
    rounds: int = 12,
    step_seconds: float = 1.0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Times steps in both places in turn, a few at a time, with both processes alive all along.

    A busy machine slows both sides of a round alike, so each round gives one ratio, and the result is their
    median with a confidence interval. The Ray worker reports each step to the driver, as training does.
    Ray's other processes run beside both sides: what they take of the machine is reported apart, in percent
    of one core. The number of micro-batches in a step is chosen so that a step takes about ``step_seconds``.

    Args:
        config: the preset.
        steps: of each side in a round; their median counts.
        rounds: the side that goes first alternates.
        step_seconds: wanted length of a step.
        say: called with news.

    Returns:
        ``{"rows": [{"name": "plain" | "ray", "step_seconds", "rounds": [...]}], "ratios":
        {"overhead_percent", "low_percent", "high_percent", "overhead_ms", "spread_percent",
        "other_ray_processes_percent"}, "machine"}``. ``low`` and ``high`` bound the median with 95 %
        confidence (bootstrap over rounds); ``spread_percent`` is the middle half of the rounds' ratios;
        the last one is ``None`` on a cluster that this command did not start.
    """
    from pipelines.bench.engine_steps import alone

    accumulation = micro_batches_for(step_seconds, lambda number: _step_of(alone(config, number)))
    chosen = alone(config, accumulation)
    say(f"{accumulation} micro-batches of {chosen.micro_batch} a step")
    found: dict[str, list[float]] = {"plain": [], "ray": []}
    with (
        tempfile.TemporaryDirectory(prefix="unigeoseg-turns-") as folder,
        _both(chosen, Path(folder)) as turns,
    ):
        for name in found:
            turns.ask(name, _WARM_UP)
        clock = _OtherProcesses()
        for number in range(rounds):
            for name in ("plain", "ray") if number % 2 == 0 else ("ray", "plain"):
                found[name].append(median(turns.ask(name, steps)))
            say(f"round {number + 1}: {found['plain'][-1]:.4f} s plain, {found['ray'][-1]:.4f} s in Ray")
        others = clock.percent()
    rows = [
        {"name": name, "step_seconds": median(times), "rounds": times, "steps": steps, "batch": accumulation}
        for name, times in found.items()
    ]
    ratios = compare_rounds(found["plain"], found["ray"]) | {"other_ray_processes_percent": others}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {"rows": rows, "ratios": ratios, "machine": describe_machine(device)}


def micro_batches_for(seconds: float, step_of: Callable[[int], float]) -> int:
    """How many micro-batches make a step of about ``seconds``.

    A step has a part that does not grow with them, the update; so two lengths are asked for, and a line is
    laid through both.

    Args:
        seconds: wanted length of a step.
        step_of: times a step of so many micro-batches, in seconds.
    """
    one = step_of(1)
    guess = max(2, round(seconds / one))
    each = (step_of(guess) - one) / (guess - 1)
    if each <= 0:  # noise: the update is all that a step is
        return guess
    return max(1, 1 + round((seconds - one) / each))


def compare_rounds(plain: list[float], ray: list[float]) -> dict[str, float | None]:
    """What the rounds say about Ray's cost per step."""
    before, after = np.array(plain), np.array(ray)
    percent = 100 * (after / before - 1)
    draws = np.random.default_rng(0).integers(0, len(percent), (4000, len(percent)))
    low, high = np.quantile(np.median(percent[draws], axis=1), [0.025, 0.975])
    quarters = np.quantile(percent, [0.25, 0.75])
    return {
        "overhead_percent": float(np.median(percent)),
        "low_percent": float(low),
        "high_percent": float(high),
        "overhead_ms": float(1000 * np.median(after - before)),
        "spread_percent": float(quarters[1] - quarters[0]),
    }


@contextmanager
def _both(config: Config, folder: Path) -> Iterator[Turns]:
    """A plain process and a Ray Train worker, ready for their turns."""
    from pipelines.cluster_view.session import ray_session

    with ray_session(config), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        ends: list[Future[Any]] = [
            pool.submit(_serve, config, folder, "plain", None),
            in_background(lambda: _in_ray(config, folder), "ray worker"),
        ]
        try:
            with Turns(folder, alive=lambda: not any(end.done() for end in ends)) as turns:
                yield turns
        except RuntimeError:
            for end in ends:
                if end.done() and (error := end.exception()) is not None:
                    raise error from None
            raise
        for end in ends:
            end.result()


def _in_ray(config: Config, folder: Path) -> None:
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from pipelines.train.loop.channel import Mailbox

    mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
    with tempfile.TemporaryDirectory(prefix="unigeoseg-ray-") as bookkeeping:
        TorchTrainer(
            _in_worker,
            train_loop_config={"config": config, "folder": folder, "mailbox": mailbox},
            scaling_config=ScalingConfig(
                num_workers=1,
                use_gpu=config.scale.gpus_per_worker > 0,
                resources_per_worker={
                    "CPU": config.scale.cpus_per_worker,
                    **({"GPU": config.scale.gpus_per_worker} if config.scale.gpus_per_worker else {}),
                },
            ),
            run_config=RunConfig(name="overhead", storage_path=bookkeeping),
        ).fit()
    ray.kill(mailbox)


def _in_worker(settings: dict[str, Any]) -> None:
    from pipelines.train.loop.channel import RayChannel

    _serve(settings["config"], settings["folder"], "ray", RayChannel(settings["mailbox"]))


def _serve(config: Config, folder: Path, name: str, channel: Any) -> None:
    from pipelines.bench.engine_steps import EngineSteps

    bench = EngineSteps(config)

    def step() -> float:
        seconds, result = bench.step()
        if channel is not None:
            channel.post("row", {"step": result.step, "loss": result.loss, "parts": result.parts})
        return seconds

    serve_turns(folder, name, step)
    bench.engine.close()


def _step_of(config: Config) -> float:
    """The length of a step, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_warm_step, config).result()


def _warm_step(config: Config) -> float:
    from pipelines.bench.engine_steps import EngineSteps

    bench = EngineSteps(config)
    times = [bench.step()[0] for _ in range(_WARM_UP + 3)]
    bench.engine.close()
    return median(times[_WARM_UP:])


class _OtherProcesses:
    """Processor time of what this process started, the two sides left out."""

    def __init__(self) -> None:
        self._started, self._before = time.monotonic(), self._seconds()

    def percent(self) -> float | None:
        """Of one core, since the start; ``None`` when Ray runs elsewhere."""
        now, before = self._seconds(), self._before
        used = sum(now[pid] - before.get(pid, 0.0) for pid in now)
        wall = time.monotonic() - self._started
        return 100 * used / wall if len(now) > 1 else None

    @staticmethod
    def _seconds() -> dict[int, float]:
        found = {}
        for process in psutil.Process().children(recursive=True):
            try:
                if not any(word in " ".join(process.cmdline()) for word in ("RayTrainWorker", "spawn_main")):
                    times = process.cpu_times()
                    found[process.pid] = times.user + times.system
            except psutil.Error:
                continue
        return found
