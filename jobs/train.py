"""``unigeoseg train``: train a model on a store, or go on with a run."""

import time
from collections.abc import Callable
from typing import Any

import click

from jobs.intention import train_text
from jobs.options import dry_run_option, emit, json_option, preset_option, print_config_option, set_option
from jobs.settings import load_config
from jobs.settings import print_config as as_yaml
from pipelines.config import Config


@click.command()
@preset_option
@click.option("--store", required=True, help="Folder or s3:// prefix of the store.")
@click.option(
    "--run", metavar="NAME|PATH", help="Run folder, s3:// prefix, or a name under runs/. [<preset>-<time>]"
)
@click.option("--resume", is_flag=True, help="Go on with the run from its newest checkpoint.")
@click.option(
    "--allow-config-change",
    "allow",
    multiple=True,
    metavar="KEY",
    help="With --resume: let this setting differ from the run's own. Repeatable.",
)
@click.option(
    "--evaluate/--no-evaluate",
    default=True,
    show_default=True,
    help="Evaluate on held-out scenes after it.",
)
@click.option(
    "--plain",
    is_flag=True,
    help="Without Ray: in this process, or in the ranks that torchrun started (scale.workers of them).",
)
@set_option
@json_option
@dry_run_option
@print_config_option
def train(
    preset: str,
    store: str,
    run: str | None,
    resume: bool,
    allow: tuple[str, ...],
    evaluate: bool,
    plain: bool,
    sets: tuple[str, ...],
    as_json: bool,
    dry_run: bool,
    print_config: bool,
) -> None:
    """Train on a store with Ray and DeepSpeed; the summary goes to stdout, progress to stderr.

    \b
    Example:
      unigeoseg train --preset small-cpu --store stores/dubai --run dubai --set train.lr=3e-4
      unigeoseg train --preset small-cpu --store stores/dubai --run dubai --resume
      torchrun --nproc-per-node 8 -m -- jobs.train --plain --preset paper --store stores/mine --run mine
    """
    config = load_config(preset, sets)
    if print_config:
        click.echo(as_yaml(config), nl=False)
        return
    folder = run_path(run, config)
    if dry_run:
        emit(_intention(config, store, folder), as_json, train_text)
        return
    summary = _start(plain)(config, store, folder, resume=resume, evaluate=evaluate, allow=allow)
    if summary is None:  # a rank beside the first one
        return
    emit(summary, as_json, lambda result: as_text(folder, result))


def _start(plain: bool) -> Callable[..., dict[str, Any] | None]:
    if plain:
        from pipelines.train.driver.plain import train_plain

        return train_plain
    from pipelines.train.driver.launcher import train as run_training

    return run_training


def run_path(run: str | None, config: Config | None) -> str:
    """The run folder that ``--run`` means: a path as it is, a bare name under ``runs/``."""
    if run is None:
        assert config is not None
        return f"runs/{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return run if "/" in run or run.startswith(".") else f"runs/{run}"


def _intention(config: Config, store: str, folder: str) -> dict[str, Any]:
    from pipelines.models.initial import check_start
    from pipelines.plan import Plan
    from pipelines.plan.overview import overview
    from pipelines.store.index import StoreIndex
    from pipelines.train.checkpoints.best import check_best
    from pipelines.train.driver.prepare import check_profile
    from pipelines.train.engine.compiling import check_backend
    from pipelines.train.engine.deepspeed_config import deepspeed_config

    check_start(config)
    check_best(config, store)
    index = StoreIndex.open(store, config.data.split)
    plan = Plan.from_config(index, config)
    check_profile(config, plan.steps)
    check_backend(config.train.compile_backend)
    return {
        "run": folder,
        "store": store,
        "workers": config.scale.workers,
        "micro_batch": config.train.micro_batch,
        "plan": overview(plan, index, batches=1),
        "deepspeed": deepspeed_config(config, config.scale.workers),
    }


def as_text(folder: str, summary: dict[str, Any]) -> str:
    """The end of a training for people."""
    from jobs.quickstart import results_table
    from pipelines.train.loop.advice import in_words

    lines = [results_table(summary), ""] if summary["tasks"] else []
    lines.append(in_words(summary))
    lines.append(f"run {folder} (report.html, summary.json, export/, {summary['checkpoint']})")
    return "\n".join(lines)


if __name__ == "__main__":
    from jobs.cli import run as run_command

    run_command(train)
