"""``unigeoseg bench step``: what the parts of a training step cost."""

from pathlib import Path
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
    help="Images; by default what a worker holds at once. Repeatable.",
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
@click.option("--instructions", type=click.IntRange(min=1), help="Of an image; the preset's by default.")
@click.option(
    "--engine/--bare",
    default=True,
    show_default=True,
    help="Also time the engine that trains (DeepSpeed, float32 masters, clipping), or the bare model alone.",
)
@click.option(
    "--memory-snapshot",
    "snapshot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --device cuda: write the allocator's history there, for PyTorch's memory viewer (one a rank).",
)
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
    instructions: int | None,
    engine: bool,
    snapshot: Path | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Time a training step on random images, without Ray: the bare model's parts, then the engine.

    The engine is Engine.train_step as training calls it, on as many threads. Started by torchrun it is
    one engine of all ranks.

    \b
    Example:
      unigeoseg bench step --preset quickstart --batch 4
      unigeoseg bench step --preset quickstart --set model.mode=released --beside-plain
      unigeoseg bench step --preset paper --batch 1 --steps 1 --warmup 0
      unigeoseg bench step --preset paper --device cuda --batch 8 --batch 32 --kernels 3
      torchrun --nproc-per-node 8 -m -- jobs.bench_step --preset paper --device cuda --batch 2
    """
    from jobs.settings import load_config

    config = load_config(preset, sets)
    from pipelines.bench.step import bench_step

    result = bench_step(
        config,
        image_size,
        device,
        batches,
        steps,
        warmup,
        beside=beside,
        kernels=kernels,
        instructions=instructions,
        engine=engine,
        snapshot=snapshot,
    )
    if result is None:  # a rank beside the first one
        return
    emit(result, as_json, _step_table)


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
        if "out_of_memory" in each:
            lines.append(f"batch {each['batch']}: {each['out_of_memory']}")
            continue
        mfu = "unknown" if each["mfu"] is None else f"{each['mfu']:.1%}"
        shape = f"batch {each['batch']}, {each['samples']} instructions, {each['image_size']} px"
        lines.append(
            f"{each['samples_per_second']:.2f} samples/s ({shape}, {each['tokens']} tokens, "
            f"{each['precision']}); MFU {mfu}; peak memory {each['peak_memory_bytes'] / 2**30:.2f} GiB"
        )
    lines += _engine_lines(result)
    for row in result.get("kernels", []):
        name = row["name"] if len(row["name"]) <= 90 else row["name"][:87] + "..."
        lines.append(f"{1000 * row['seconds']:>10.1f} ms {row['share']:>6.1%} {row['calls']:>5}x {name}")
    return "\n".join(lines)


def _engine_lines(result: dict[str, Any]) -> list[str]:
    if "engine_left_out" in result:
        return [f"engine: not timed, {result['engine_left_out']}"]
    lines = []
    for row in result.get("engine", []):
        if "out_of_memory" in row:
            lines.append(f"engine, {row['batch']} images: {row['out_of_memory']}")
            continue
        parts = ", ".join(f"{part} {1000 * row[part]:.1f}" for part in ("forward", "backward", "optimizer"))
        bare = f", {row['of_bare']:.2f} of the bare model's" if "of_bare" in row else ""
        mfu = "unknown" if row["mfu"] is None else f"{row['mfu']:.1%}"
        workers = f"{row['workers']} worker{'s' * (row['workers'] > 1)} at ZeRO {row['zero_stage']}"
        lines += [
            f"engine, {workers}, {row['batch']} images of {row['instructions']} instructions each: "
            f"{1000 * row['step_seconds']:.1f} ms a step ({parts}){bare}",
            f"  {row['samples_per_second']:.2f} samples/s, {row['tokens_per_second']:.0f} tokens/s "
            f"({row['padding']:.0%} padding besides); MFU {mfu}; "
            f"peak memory {row['peak_memory_bytes'] / 2**30:.2f} GiB",
        ]
    return lines


if __name__ == "__main__":
    from jobs.cli import run as run_command

    run_command(step)
