"""``unigeoseg bench data``: our stream beside bare decoding and other loaders."""

import logging
from typing import Any

import click

from jobs.options import emit, json_option, preset_option, set_option
from jobs.settings import load_config


@click.command()
@click.argument("store")
@preset_option
@click.option(
    "--samples", default=2048, show_default=True, type=click.IntRange(min=64), help="Images, a sample each."
)
@click.option(
    "--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Rounds; medians count."
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(["jpeg", "png"]),
    multiple=True,
    help="Format of the images; repeatable, both by default.",
)
@click.option(
    "--rows",
    "only",
    multiple=True,
    metavar="TEXT",
    help="Measure only rows whose name has this in it, beside bare decoding; repeatable.",
)
@click.option("--s3", is_flag=True, help="Also from S3: nginx, if installed, serves the images on loopback.")
@click.option(
    "--peer-python",
    metavar="PYTHON",
    help="Interpreter of an environment with mosaicml-streaming, opencv-python-headless, pycocotools and "
    "simplejpeg (it clashes with s3fs).",
)
@set_option
@json_option
def data(
    store: str,
    preset: str,
    samples: int,
    repeats: int,
    formats: tuple[str, ...],
    only: tuple[str, ...],
    s3: bool,
    peer_python: str | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure images per second from store to batch, side by side with other loaders.

    \b
    Example:
      unigeoseg bench data stores/synthetic --preset quickstart --rows threads
    """
    import ray

    from pipelines.bench.data import bench_data
    from pipelines.cluster_view.ending import end_ray

    config = load_config(preset, sets)
    started = not ray.is_initialized()
    if started:  # RAY_ADDRESS, or a local one
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    try:
        result = bench_data(
            config,
            store,
            samples,
            repeats,
            formats or ("jpeg", "png"),
            s3,
            peer_python,
            lambda text: click.echo(text, err=True),
            only,
        )
    finally:
        if started:
            end_ray()
    emit(result, as_json, _as_text)


def _as_text(result: dict[str, Any]) -> str:
    """The speeds as a table, the ratios, the parts, the machine."""
    lines = [f"{'':<38}{'images/s':>10}{'of bare':>9}"]
    for row in result["rows"]:
        if "skipped" in row:
            lines.append(f"{row['name']:<38}skipped: {row['skipped']}")
            continue
        ratio = result["ratios"].get(f"{row['name']} / bare")
        lines.append(f"{row['name']:<38}{row['images_per_s']:>10.0f}" + (f"{ratio:>9.2f}" if ratio else ""))
    lines += ["", *(f"{k}: {v:.2f}" for k, v in result["ratios"].items() if not k.endswith("/ bare"))]
    for kind, parts in result["parts"].items():
        lines += ["", f"{kind}: milliseconds per image in one thread"]
        lines += [f"  {name:<36}{value:>10.3f}" for name, value in parts.items()]
    lines += ["", "machine: " + ", ".join(f"{k} {v}" for k, v in result["machine"].items())]
    return "\n".join(lines)
