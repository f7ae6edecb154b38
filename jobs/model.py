"""``unigeoseg model info``: how large a preset's model is."""

from typing import Any

import click

from jobs.options import emit, json_option, preset_option, set_option


@click.command()
@preset_option
@set_option
@json_option
def info(preset: str, sets: tuple[str, ...], as_json: bool) -> None:
    """Count the parameters of a preset's model by module.

    \b
    Example:
      unigeoseg model info --preset paper
    """
    from jobs.settings import load_config

    config = load_config(preset, sets)  # before torch is imported: a mistyped key is refused at once
    from pipelines.model_info import describe

    emit(describe(config), as_json, _table)


def _table(result: dict[str, Any]) -> str:
    rows = [
        *result["modules"],
        {"name": "total", "parameters": result["total"], "trainable": result["trainable"]},
    ]
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'module':<{width}}  {'parameters':>14}  {'trainable':>14}"]
    lines += [f"{row['name']:<{width}}  {row['parameters']:>14,}  {row['trainable']:>14,}" for row in rows]
    return "\n".join(lines)
