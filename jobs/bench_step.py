"""``unigeoseg bench step``: what the parts of a training step cost."""

from typing import Any

import click

from jobs.options import emit, json_option, preset_option, set_option


@click.command()
@preset_option
@click.option(
    "--image-size", type=click.IntRange(min=32), help="Side of the image, in place of the preset's."
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    help="Samples; by default what a worker holds at once. Repeatable.",
)
@click.option("--steps", type=click.IntRange(min=1), default=3, show_default=True, help="Timed steps.")
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Steps before that are not timed.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option(
    "--beside-plain",
    "beside",
    is_flag=True,
    help="Also time the released code's arrangement, rebuilt from transformers' modules (released mode).",
)
@click.option(
    "--kernels",
    type=click.IntRange(min=0),
    default=0,
    help="Name so many of the largest kernels (on a CPU: operators) of a step.",
)
@set_option
@json_option
def step(
    preset: str,
    image_size: int | None,
    batches: tuple[int, ...],
    steps: int,
    warmup: int,
    device: str,
    beside: bool,
    kernels: int,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Time the parts of one training step on random images, without Ray.

    \b
    Example:
      unigeoseg bench step --preset quickstart --batch 4
      unigeoseg bench step --preset quickstart --set model.mode=released --beside-plain
      unigeoseg bench step --preset paper --batch 1 --steps 1 --warmup 0
      unigeoseg bench step --preset paper --device cuda --batch 8 --batch 32 --kernels 3
    """
    from jobs.settings import load_config

    config = load_config(preset, sets)
    from pipelines.bench.step import bench_step

    emit(
        bench_step(config, image_size, device, batches, steps, warmup, beside, kernels), as_json, _step_table
    )


def _step_table(result: dict[str, Any]) -> str:
    ratios = result["ratios"]
    beside = "of_plain" in ratios
    lines = [f"{'part':<14} {'ms':>10} {'share':>7}" + (f" {'plain ms':>10}" if beside else "")]
    for row in result["rows"]:
        plain = f" {1000 * row['plain_seconds']:>10.1f}" if beside else ""
        lines.append(f"{row['name']:<14} {1000 * row['seconds']:>10.1f} {row['share']:>6.1%}{plain}")
    if beside:
        lines.append(f"forward and backward take {ratios['of_plain']:.2f} of the plain arrangement's time")
    for each in result.get("batches", [ratios]):
        mfu = "unknown" if each["mfu"] is None else f"{each['mfu']:.1%}"
        lines.append(
            f"{each['samples_per_second']:.2f} samples/s (batch {each['batch']}, {each['image_size']} px, "
            f"{each['tokens']} tokens, {each['precision']}); MFU {mfu}; "
            f"peak memory {each['peak_memory_bytes'] / 2**30:.2f} GiB"
        )
    for row in result.get("kernels", []):
        name = row["name"] if len(row["name"]) <= 90 else row["name"][:87] + "..."
        lines.append(f"{1000 * row['seconds']:>10.1f} ms {row['share']:>6.1%} {row['calls']:>5}x {name}")
    return "\n".join(lines)
