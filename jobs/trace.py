"""``unigeoseg data trace`` and ``unigeoseg data stream``: what each worker should get, and what it gets."""

import logging
import math
import tempfile
from pathlib import Path
from typing import Any

import click

from jobs.options import emit, json_option, preset_option, set_option
from jobs.settings import load_config
from pipelines.config import Config
from pipelines.config.batch import positions_per_worker
from pipelines.plan import Plan
from pipelines.store.index import StoreIndex
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

_steps_option = click.option(
    "--steps", default="0:10", show_default=True, metavar="A:B", help="Steps A to B - 1 of the plan."
)
_world_option = click.option(
    "--world-size", "world", type=click.IntRange(min=1), help="Number of workers; the preset's by default."
)


@click.command()
@click.argument("store")
@preset_option
@_steps_option
@_world_option
@click.option(
    "--sheet", type=click.Path(path_type=Path), help="Draw the samples, worker by worker, into this PNG."
)
@set_option
@json_option
def trace(
    store: str,
    preset: str,
    steps: str,
    world: int | None,
    sheet: Path | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print which samples each worker gets, from the plan alone.

    \b
    Example:
      unigeoseg data trace stores/synthetic --preset quickstart --steps 0:4 --world-size 2 --sheet look.png
    """
    config = load_config(preset, sets)
    index = StoreIndex.open(store, config.data.split)
    plan = Plan.from_config(index, config)
    begin, end = parse_steps(steps, plan)
    workers = world or config.scale.workers
    result = planned(plan, index, begin, end, workers)
    if sheet is not None:
        from pipelines.stream.sheet import draw_sheet

        draw_sheet(plan, index, range(begin, end), workers, sheet)
        result["sheet"] = str(sheet)
    emit(result, as_json, as_text)


@click.command()
@click.argument("store")
@preset_option
@_steps_option
@_world_option
@set_option
@json_option
def stream(
    store: str, preset: str, steps: str, world: int | None, sets: tuple[str, ...], as_json: bool
) -> None:
    """Stream the steps through Ray Data and print which samples arrived, and what it cost.

    \b
    Example:
      unigeoseg data stream stores/synthetic --preset quickstart --steps 0:4 --world-size 2
    """
    config = load_config(preset, sets)
    index = StoreIndex.open(store, config.data.split)
    plan = Plan.from_config(index, config)
    begin, end = parse_steps(steps, plan)
    workers = world or config.scale.workers
    per_worker = positions_per_worker(config.train.global_batch, workers)
    if (micro := config.train.given_micro_batch) and per_worker % micro:
        # A look at another number of workers than the preset's: only the order matters here.
        train = config.train.model_copy(update={"micro_batch": math.gcd(micro, per_worker)})
        config = config.model_copy(update={"train": train})
    result = {"fingerprint": plan.fingerprint, **arrived(config, store, plan, index, begin, end, workers)}
    emit(result, as_json, as_text)


def parse_steps(text: str, plan: Plan) -> tuple[int, int]:
    """``A:B`` as two numbers inside the plan.

    Raises:
        UserError: not two numbers, the wrong way round, or outside the plan.
    """
    begin_text, colon, end_text = text.partition(":")
    try:
        if not colon:
            raise ValueError("no colon")
        begin, end = int(begin_text or 0), int(end_text or plan.steps)
    except ValueError as error:
        raise UserError(f"--steps {text}: expected A:B, for example --steps 0:10") from error
    if not 0 <= begin < end <= plan.steps:
        raise UserError(
            f"--steps {text}: the plan has the steps 0:{plan.steps}, and A must be smaller than B "
            "(train.steps or train.epochs make it longer)"
        )
    return begin, end


def planned(plan: Plan, index: StoreIndex, begin: int, end: int, world: int) -> dict[str, Any]:
    """The steps as ``data trace`` prints them."""
    steps = []
    for step in range(begin, end):
        parts = [plan.rank_slice(step, rank, world) for rank in range(world)]
        steps.append(
            {
                "step": step,
                "position": step * plan.batch_size,
                "ranks": [index.sample_ids(part.rows) for part in parts],
                "tasks": [[TASKS[t] for t in part.row_tasks] for part in parts],
            }
        )
    return {"fingerprint": plan.fingerprint, "steps": steps}


def arrived(
    config: Config, store: str, plan: Plan, index: StoreIndex, begin: int, end: int, world: int
) -> dict[str, Any]:
    """The steps as they come out of Ray Data, worker by worker, and the totals."""
    import ray

    from pipelines.cluster_view.ending import end_ray
    from pipelines.stream import open_stream
    from pipelines.stream.quarantine import BadSampleEvent, Quarantine
    from pipelines.stream.tokenizer import prepare_tokenizer

    rows = {
        step: {
            "step": step,
            "position": step * plan.batch_size,
            "ranks": [[] for _ in range(world)],
            "tasks": [[] for _ in range(world)],
        }
        for step in range(begin, end)
    }
    totals: dict[str, Any] = {}
    met: dict[int, list[BadSampleEvent]] = {}
    with tempfile.TemporaryDirectory(prefix="unigeoseg-") as folder:
        prepare_tokenizer(config, index, Path(folder))
        started = not ray.is_initialized()
        if started:  # RAY_ADDRESS, or a local one
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        try:
            for rank in range(world):
                with open_stream(config, store, folder, rank, world, begin, end) as items:
                    for item in items:
                        row: Any = rows[item.step]
                        row["ranks"][rank] += item.batch.sample_ids
                        row["tasks"][rank] += [TASKS[t] for t in item.batch.task.tolist()]
                        met.setdefault(item.step, []).extend(item.events)
                    totals = add_stats(totals, items.stats.plain())
        finally:
            if started:
                end_ray()
    quarantine = Quarantine(len(index), config.data.max_bad_share)
    seen = 0
    for step in range(begin, end):
        seen += plan.samples_in(step)
        quarantine.remember(met[step])
        quarantine.judge(seen)
    totals["quarantined"] = quarantine.reasons
    return {"steps": list(rows.values()), "stats": totals}


def add_stats(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Sums two workers' totals, reason by reason too."""
    added = dict(one)
    for name, value in other.items():
        if isinstance(value, dict):
            added[name] = add_stats(added.get(name, {}), value)
        else:
            added[name] = added.get(name, 0) + value
    return added


def as_text(result: dict[str, Any]) -> str:
    """The steps for people: a line for each step and worker."""
    lines = [f"plan {result['fingerprint'][:16]}"]
    for step in result["steps"]:
        for rank, (ids, tasks) in enumerate(zip(step["ranks"], step["tasks"], strict=True)):
            counts = ", ".join(f"{tasks.count(task)} {task}" for task in TASKS if task in tasks)
            lines.append(f"step {step['step']:>6}  worker {rank}  {counts}: {' '.join(ids)}")
    lines += [f"{name}: {value}" for name, value in result.get("stats", {}).items()]
    return "\n".join(lines)
