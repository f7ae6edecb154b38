"""``unigeoseg simulate``: what lost nodes and checkpoints cost on clusters that are not at hand."""

import json
from pathlib import Path
from typing import Any

import click

from jobs.options import emit, json_option
from unigeoseg.errors import UserError


@click.command()
@click.option("--gpus", default="8,16,32,64,128,256,512,1024", show_default=True, help="Cluster sizes.")
@click.option("--per-node", type=click.IntRange(1), default=8, show_default=True, help="GPUs lost together.")
@click.option("--every", default="50,200,1000", show_default=True, help="Steps between checkpoints.")
@click.option("--steps", type=click.IntRange(1), default=10_000, show_default=True, help="Of the run.")
@click.option("--step", type=float, metavar="SECONDS", help="Of a step on one node.")
@click.option("--bench-step", type=click.Path(path_type=Path), metavar="FILE",
              help="Take it from what `unigeoseg bench step --json` printed.")  # fmt: skip
@click.option("--checkpoint", type=float, default=5.0, show_default=True, metavar="SECONDS",
              help="That a checkpoint holds training.")  # fmt: skip
@click.option("--bench-checkpoint", type=click.Path(path_type=Path), metavar="FILE",
              help="Take it from what `unigeoseg bench checkpoint --json` printed.")  # fmt: skip
@click.option("--restart", type=float, default=180.0, show_default=True, metavar="SECONDS",
              help="From a lost node to the first step again.")  # fmt: skip
@click.option("--node-life", type=float, default=500.0, show_default=True, metavar="HOURS",
              help="Mean time between failures of a node; spot nodes live shorter.")  # fmt: skip
@click.option("--communication", type=float, default=0.0, show_default=True, metavar="SECONDS",
              help="Added to a step for each doubling of the nodes.")  # fmt: skip
@click.option("--samples", type=float, default=2.0, show_default=True, help="Of a step on one GPU.")
@click.option("--data-rate", type=float, metavar="SAMPLES/S", help="Of storage and CPU nodes. [unlimited]")
@click.option("--failures", metavar="SECONDS,…", help="Lose nodes at these times, once, and at no others.")
@click.option("--seeds", type=click.IntRange(1), default=4, show_default=True, help="Runs to average.")
@click.option("--out", type=click.Path(path_type=Path), metavar="PNG", help="Draw goodput against size.")
@json_option
def simulate(
    gpus: str,
    per_node: int,
    every: str,
    steps: int,
    step: float | None,
    bench_step: Path | None,
    checkpoint: float,
    bench_checkpoint: Path | None,
    restart: float,
    node_life: float,
    communication: float,
    samples: float,
    data_rate: float | None,
    failures: str | None,
    seeds: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Simulate a run on clusters of many sizes: the share of the time that becomes training (goodput).

    Nodes fail independently, with exponentially distributed lives; a lost node costs the work since the last
    checkpoint and a restart; a spare is always there. Nothing here is measured but what you give.

    \b
    Example:
      unigeoseg bench step --preset paper --device cuda --json > step.json
      unigeoseg simulate --bench-step step.json --node-life 100 --every 50,200,1000 --out goodput.png
    """
    from pipelines.planner.simulate import Cluster, draw, replay, sweep

    if (step is None) == (bench_step is None):
        raise UserError("give the seconds of a step, --step or --bench-step FILE (one of them)")
    if bench_step is not None:
        step = _step_of(bench_step)
    if bench_checkpoint is not None:
        checkpoint = _rows(bench_checkpoint, "stall_seconds", "bench checkpoint")[-1]["stall_seconds"]
    assert step is not None
    sizes, cadences = _numbers("--gpus", gpus), _numbers("--every", every)
    cluster = Cluster(
        gpus=sizes[0],
        compute=step,
        node_life=node_life * 3600,
        checkpoint=checkpoint,
        restart=restart,
        per_node=per_node,
        communication=communication,
        samples=samples,
        data_rate=float("inf") if data_rate is None else data_rate,
    )
    if failures is not None:
        times = _times("--failures", failures)
        walls = [(n, replay(cluster, steps, n, list(times))) for n in cadences]
        useful = steps * cluster.step
        found = [{"every": n, "wall_seconds": wall, "goodput": useful / wall} for n, wall in walls]
        emit({"rows": found, "assumptions": _assumed(cluster, steps)}, as_json)
        return
    rows = sweep(cluster, sizes, cadences, steps, seeds)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        draw(rows, str(out))
    emit({"rows": rows, "assumptions": _assumed(cluster, steps)}, as_json, _text)


def _assumed(cluster: Any, steps: int) -> dict[str, Any]:
    rate = None if cluster.data_rate == float("inf") else cluster.data_rate
    return {**vars(cluster), "data_rate": rate, "steps": steps}


def _numbers(option: str, text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{option} {text}: give whole numbers, for example 8,64,512") from error
    if min(found) < 1:
        raise UserError(f"{option} {text}: each is at least 1")
    return found


def _times(option: str, text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{option} {text}: give seconds, for example 30,95.5") from error
    if min(found) < 0:
        raise UserError(f"{option} {text}: none is before the beginning")
    return found


def _step_of(path: Path) -> float:
    """Seconds of a step: the engine's where it was timed, else the sum of the bare model's parts."""
    parts = _rows(path, "seconds", "bench step")
    timed = [row for row in _document(path).get("engine", ()) if "step_seconds" in row]
    return float(timed[-1]["step_seconds"]) if timed else sum(row["seconds"] for row in parts)


def _document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _rows(path: Path, key: str, command: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = _document(path)["rows"]
        if rows and all(isinstance(row[key], int | float) for row in rows):
            return rows
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path}: not what `unigeoseg {command} --json` prints (rows with {key})")


def _hours(hours: float | None) -> str:
    return "never" if hours is None else f"{hours:.1f}"


def _text(result: dict[str, Any]) -> str:
    lines = [f"{'GPUs':>6}{'every':>8}{'goodput':>10}{'samples/s':>12}{'hours':>9}{'best every':>12}"]
    lines += [
        f"{row['gpus']:>6}{row['every']:>8}{row['goodput']:>10.1%}{row['samples_per_second']:>12.1f}"
        f"{_hours(row['hours']):>9}{row['young_every']:>12}"
        for row in result["rows"]
    ]
    if any(row["hours"] is None for row in result["rows"]):
        from pipelines.planner.simulate import ENDLESS

        lines.append(
            f"never: nodes are lost before the next checkpoint, and less than {ENDLESS:.0%} of the time "
            "becomes training; write checkpoints more often"
        )
    given = result["assumptions"]
    lines.append(
        f"simulated, not measured: step {given['compute']:g} s, checkpoint {given['checkpoint']:g} s, "
        f"restart {given['restart']:g} s, a node lives {given['node_life'] / 3600:g} h; best every: by Young"
    )
    return "\n".join(lines)
