"""``unigeoseg plan``: what a run will draw, before it costs anything."""

from pathlib import Path
from typing import Any

import click

from jobs.options import emit, json_option, preset_option, set_option
from jobs.settings import load_config
from pipelines.plan import Plan
from pipelines.plan.overview import overview
from pipelines.store.index import StoreIndex
from unigeoseg.tasks import TASKS


@click.command()
@click.option("--store", required=True, help="Folder or s3:// prefix of the store.")
@preset_option
@click.option("--out", type=click.Path(path_type=Path), help="Draw the shares over time into this PNG.")
@click.option(
    "--cluster",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file for `ray up`: memory, hours and cost on its groups.",
)
@click.option(
    "--mfu",
    type=click.FloatRange(0.01, 1.0),
    default=0.2,
    show_default=True,
    help="Share of the GPUs' peak that training reaches (with --cluster); 0.2 was measured for the paper's "
    "model at 32 images on an H100.",
)
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A price table in place of ours, pipelines/planner/prices.yaml (with --cluster).",
)
@set_option
@json_option
def plan(
    store: str,
    preset: str,
    out: Path | None,
    cluster: Path | None,
    mfu: float,
    prices: Path | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show steps, passes, task shares over time, the first batches and the fingerprint of a run's plan.

    \b
    Example:
      unigeoseg plan --preset quickstart --store stores/synthetic --out shares.png
      unigeoseg plan --preset paper --store s3://bucket/store --cluster ray_cluster.yaml
    """
    config = load_config(preset, sets)
    index = StoreIndex.open(store, config.data.split)
    made = Plan.from_config(index, config)
    result = overview(made, index)
    if config.pts.schedule == "adaptive":
        step = made.curve.length // made.batch_size
        result["note"] = (
            f"adaptive: the shares from step {step} on are chosen in training; those here go on as is"
        )
    if out is not None:
        from pipelines.plan.picture import draw_shares

        draw_shares(made, out)
        result["picture"] = str(out)
    if cluster is not None:
        from pipelines.planner.estimate import estimate

        result["needs"] = estimate(config, made, index, cluster, mfu, prices)
    emit(result, as_json, _as_text)


def _as_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['steps']} steps of {result['global_batch']} positions, "
        f"about {result['instructions']} instructions",
        f"fingerprint {result['fingerprint']}",
        result.get("note", ""),
        f"{'task':<12}{'samples':>10}{'passes':>9}" + "".join(f"{at:>9.0%}" for at in result["progress"]),
    ]
    for task in TASKS:
        row = result["tasks"][task]
        shares = "".join(f"{share:>9.3f}" for share in row["shares"])
        lines.append(f"{task:<12}{row['samples']:>10}{row['passes']:>9.2f}{shares}")
    if len(result["phases"]) > 1:
        for phase in result["phases"]:
            there = ", ".join(f"{phase['samples'][task]} {task}" for task in TASKS)
            lines.append(f"from step {phase['step']:g} on: {there}")
    lines.append("")
    for batch in result["first_batches"]:
        lines.append(f"step {batch['step']}: " + " ".join(batch["sample_ids"]))
    if "picture" in result:
        lines.append(f"\nshares over time: {result['picture']}")
    if "needs" in result:
        lines += ["", *_needs_text(result["needs"])]
    return "\n".join(lines)


def _needs_text(needs: dict[str, Any]) -> list[str]:
    gib = 2**30
    lines = ["GiB of a worker     kept  activations    peak    host"]
    for row in needs["memory"]:
        name = f"ZeRO-{row['stage']}" + (" offload" if row["offload"] else "")
        name += " ckpt" if row["checkpointing"] else ""
        lines.append(
            f"{name:<20}{row['states'] / gib:>5.1f}{row['activations'] / gib:>13.1f}"
            f"{row['device'] / gib:>8.1f}{row['host'] / gib:>8.1f}"
        )
    lines += ["", "group       machine           nodes  at once    hours      USD"]
    for row in needs["groups"]:
        cost = "      ?        ?" if row["cost"] is None else f"{row['hours']:>9.1f}{row['cost']:>9.0f}"
        why = "" if row["fits"] else "  does not fit: " + "; ".join(row["reasons"])
        lines.append(
            f"{row['name']:<12}{row['machine'] or '':<18}{row['nodes']:>5}{row['micro_batch']:>9}{cost}{why}"
        )
    written = needs["checkpoints"]
    lines.append(
        f"cheapest that fits: {needs['cheapest'] or 'none'} (prices of {needs['prices_of']}, "
        f"{needs['prices_source']}); "
        f"{written['count']} checkpoints of {written['bytes'] / gib:.1f} GiB, "
        f"{written['kept'] / gib:.1f} GiB kept"
    )
    lines.append(f"not in USD: {'; '.join(needs['left_out'])}")
    return lines + [f"warning: {text}" for text in needs["warnings"]]
