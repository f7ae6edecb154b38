"""``unigeoseg bench build``: tiles per second of the construction steps."""

from pathlib import Path

import click

from jobs.bench import as_text
from jobs.options import emit, json_option, set_option
from jobs.settings import load_build_config


@click.command()
@click.option("--source", default="synthetic", show_default=True, help="A source, or a YAML file of yours.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the source (synthetic takes none).")
@click.option("--tiles", default=200, show_default=True, type=click.IntRange(min=1), help="Tiles to time.")
@click.option(
    "--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Rounds; the best counts."
)
@set_option(help="Override one value, for example --set tile.size=256 or --set source.size=512.")
@json_option
def build(
    source: str, root: Path | None, tiles: int, repeats: int, sets: tuple[str, ...], as_json: bool
) -> None:
    """Measure construction step by step, and components and rules beside their bare OpenCV calls.

    \b
    Example:
      unigeoseg bench build --source synthetic --set source.size=512
    """
    from pipelines.bench.build import bench_build

    config = load_build_config(None, [text.removeprefix("build.") for text in sets])
    result = bench_build(source, root, config, tiles, repeats, lambda text: click.echo(text, err=True))
    emit(result, as_json, lambda r: f"{as_text(r)}\nslowest: {r['slowest']} ({r['tiles']} tiles)")
