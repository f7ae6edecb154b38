"""What Ray Train adds to a step: the same engine and data in a plain process and in a Ray worker."""

import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch

from pipelines.bench.device import describe_machine
from pipelines.config import Config


def bench_overhead(
    config: Config,
    steps: int = 20,
    rounds: int = 3,
    step_seconds: float = 1.0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Times steps in both places in turn.

    Each round starts a plain process and then, with a Ray of its own, a Ray Train worker, as ``train`` does:
    so Ray's other processes run beside the one and not beside the other. The worker reports each step to the
    driver. The number of micro-batches in a step is chosen so that a step takes about ``step_seconds``.

    Args:
        config: the preset.
        steps: timed in each place and round.
        rounds: alternations; the order within a round alternates as well.
        step_seconds: wanted length of a step.
        say: called with news.

    Returns:
        ``{"rows": [{"name": "plain" | "ray", "step_seconds", "rounds": [...]}], "ratios":
        {"overhead_percent", "overhead_ms", "overhead_percent_of_1s", "spread_percent"}, "machine"}``.
        ``spread_percent`` is how much the plain rounds differ: an overhead below it is noise.
    """
    from pipelines.bench.engine_steps import alone

    short = in_plain_process(alone(config), 4)
    accumulation = max(1, round(step_seconds / median(short[1:])))
    chosen = alone(config, accumulation)
    say(f"{accumulation} micro-batches of {chosen.micro_batch} a step")
    found: dict[str, list[float]] = {"plain": [], "ray": []}
    for number in range(rounds):
        sides = [("plain", in_plain_process), ("ray", in_ray_worker)]
        for name, run in sides if number % 2 == 0 else sides[::-1]:
            found[name].append(median(run(chosen, steps + 2)[2:]))
            say(f"round {number + 1}, {name}: {found[name][-1]:.4f} s a step")
    rows = [
        {"name": name, "step_seconds": median(times), "rounds": times, "steps": steps, "batch": accumulation}
        for name, times in found.items()
    ]
    plain, ray = (row["step_seconds"] for row in rows)
    assert isinstance(plain, float) and isinstance(ray, float)
    ratios = {
        "overhead_percent": 100 * (ray - plain) / plain,
        "overhead_ms": 1000 * (ray - plain),
        "overhead_percent_of_1s": 100 * (ray - plain),
        "spread_percent": 100 * (max(found["plain"]) - min(found["plain"])) / plain,
    }
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {"rows": rows, "ratios": ratios, "machine": describe_machine(device)}


def in_plain_process(config: Config, steps: int) -> list[float]:
    """Seconds of each step, in a process without Ray."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_timed, config, steps, None).result()


def in_ray_worker(config: Config, steps: int) -> list[float]:
    """The same in one Ray Train worker."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from pipelines.train.channel import Mailbox
    from pipelines.train.ray_session import ray_session

    with ray_session(config):
        mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
        with tempfile.TemporaryDirectory(prefix="unigeoseg-ray-") as bookkeeping:
            TorchTrainer(
                _in_worker,
                train_loop_config={"config": config, "steps": steps, "mailbox": mailbox},
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
        times: list[float] = ray.get(mailbox.result.remote())
        ray.kill(mailbox)
    return times


def _in_worker(settings: dict[str, Any]) -> None:
    import ray

    from pipelines.train.channel import RayChannel

    mailbox = settings["mailbox"]
    times = _timed(settings["config"], settings["steps"], RayChannel(mailbox))
    ray.get(mailbox.finish.remote(times))


def _timed(config: Config, steps: int, channel: Any) -> list[float]:
    from pipelines.bench.engine_steps import EngineSteps

    bench, times = EngineSteps(config), []
    for _ in range(steps):
        seconds, result = bench.step()
        if channel is not None:
            channel.post("row", {"step": result.step, "loss": result.loss, "parts": result.parts})
        times.append(seconds)
    bench.engine.close()
    return times
