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
@set_option
@json_option
def plan(store: str, preset: str, out: Path | None, sets: tuple[str, ...], as_json: bool) -> None:
    """Show steps, passes, task shares over time, the first batches and the fingerprint of a run's plan.

    \b
    Example:
      unigeoseg plan --preset quickstart --store stores/synthetic --out shares.png
    """
    config = load_config(preset, sets)
    index = StoreIndex.open(store, config.data.split)
    made = Plan.from_config(index, config)
    result = overview(made, index)
    if out is not None:
        from pipelines.plan.picture import draw_shares

        draw_shares(made, out)
        result["picture"] = str(out)
    emit(result, as_json, _as_text)


def _as_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['steps']} steps of {result['global_batch']} positions, "
        f"about {result['instructions']} instructions",
        f"fingerprint {result['fingerprint']}",
        "",
        f"{'task':<12}{'samples':>10}{'passes':>9}" + "".join(f"{at:>9.0%}" for at in result["progress"]),
    ]
    for task in TASKS:
        row = result["tasks"][task]
        shares = "".join(f"{share:>9.3f}" for share in row["shares"])
        lines.append(f"{task:<12}{row['samples']:>10}{row['passes']:>9.2f}{shares}")
    lines.append("")
    for batch in result["first_batches"]:
        lines.append(f"step {batch['step']}: " + " ".join(batch["sample_ids"]))
    if "picture" in result:
        lines.append(f"\nshares over time: {result['picture']}")
    return "\n".join(lines)
