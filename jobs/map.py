"""``unigeoseg map``: instructions over whole rasters."""

import sys
from collections.abc import Callable
from typing import Any

import click

from jobs.map_assess import assess
from jobs.options import (
    count_range,
    device_option,
    emit,
    json_option,
    numbers,
    resource_options,
    threshold_option,
    with_options,
)

_SHOWN = 10


class RunByDefault(click.Group):
    """A group in which ``run`` may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts it in where options follow at once."""
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group("map", cls=RunByDefault)
def map_group() -> None:
    """Map rasters of any size: masks, scores and objects that open in a GIS.

    The word run may be left out.

    \b
    Examples:
      unigeoseg map plan --model runs/quickstart/export --input city.tif --text "the lakes" --out mapped
      unigeoseg map --model runs/quickstart/export --input city.tif --prompts points.gpkg --out marked
    """


def _stretch(text: str) -> Any:
    if text in ("auto", "none", "percentile"):
        return text
    limits = numbers(text, "--stretch")
    if len(limits) != 2:
        raise click.UsageError(f"--stretch {text}: give auto, none, percentile, or two numbers low,high")
    return limits


_OPTIONS: list[Callable[[Any], Any]] = [
    click.option(
        "--model",
        required=True,
        metavar="EXPORT|RUN|REF",
        help="Export folder, a run with one, s3://…, models:/NAME@ALIAS or hf://ORG/NAME.",
    ),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        required=True,
        metavar="RASTER",
        help="GeoTIFF, JPEG 2000 or picture; a folder, a pattern in quotes, s3://bucket/prefix, https://… or "
        "a STAC item (.json). Repeatable.",
    ),
    click.option(
        "--prompts",
        metavar="FILE",
        help="GeoPackage, GeoJSON, GeoParquet or shapefile of points, multipoints (up to 3) and boxes: one "
        "window each, which is what the model is trained for.",
    ),
    click.option("--text", help="A phrase, asked of every window."),
    click.option("--question", help="A question, asked of every window."),
    click.option(
        "--scope",
        type=click.Choice(["window", "scene"]),
        default="window",
        show_default=True,
        help="Look in windows of the model's size, or once at the whole (for words such as largest).",
    ),
    click.option("--aoi", metavar="FILE", help="Polygons: map nothing outside them."),
    click.option("--gsd", type=float, metavar="METRES", help="Metres a pixel; default: the raster's."),
    click.option("--crs", metavar="EPSG:…", help="Of rasters that name none."),
    click.option("--pixels", is_flag=True, help="Take rasters without a CRS; results are in pixels."),
    click.option(
        "--nodata", type=float, metavar="VALUE", help="What is no data, instead of the raster's own."
    ),
    click.option(
        "--bands", metavar="4,3,2", help="Shown as red, green, blue, from 1; default: the first three."
    ),
    click.option(
        "--stretch",
        default="auto",
        show_default=True,
        metavar="auto|none|percentile|low,high",
        help="To 8 bits: auto leaves bytes and takes percentiles of others, once for all inputs.",
    ),
    click.option("--asset", metavar="NAME", help="Of STAC items; default: the first raster to look at."),
    click.option("--allow-vrt", is_flag=True, help="Open VRT files, which name other files and servers."),
    threshold_option,
    click.option(
        "--none",
        default="auto",
        show_default=True,
        metavar="auto|off|NUMBER",
        help="Of --text and --question: mark nothing in a window where the score of the export's none.json "
        "is below its limit (auto), never (off), or below NUMBER.",
    ),
    click.option(
        "--batch",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Windows at once. With 8 a small model takes half the time, on a CPU too; a score may then "
        "differ by one of its 250 steps.",
    ),
    device_option,
    click.option(
        "--workers",
        default="0",
        show_default=True,
        metavar="N|MIN-MAX",
        help="Actors of Ray, on the cluster of RAY_ADDRESS or on this machine; between MIN and MAX they "
        "follow the work and the room. 0: this process alone.",
    ),
    *resource_options("worker"),
    click.option(
        "--out", required=True, metavar="DIR", help="New folder; with several inputs one inside it for each."
    ),
    click.option(
        "--format",
        "formats",
        type=click.Choice(["gpkg", "parquet", "geojson"]),
        multiple=True,
        default=("gpkg",),
        show_default=True,
        help="Of the objects. Repeatable. GeoJSON is in degrees; more than 100,000 become a GeoPackage.",
    ),
    click.option(
        "--simplify",
        type=click.FloatRange(0),
        default=0,
        show_default=True,
        metavar="PIXELS",
        help="Tolerance of outlines; 0: along pixel edges.",
    ),
]


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    return with_options(command, _OPTIONS)


def _request(values: dict[str, Any]) -> Any:
    from pipelines.evaluate.predict import parse_none
    from pipelines.maps.request import Request

    bands = numbers(values.pop("bands"), "--bands")
    return Request(
        **{
            **values,
            "bands": None if bands is None else tuple(int(band) for band in bands),
            "stretch": _stretch(values["stretch"]),
            "none": parse_none(values["none"]),
            "workers": count_range(values["workers"], "--workers"),
        }
    )


@map_group.command()
@_with_options
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Windows a second; default: timed.")
@json_option
def plan(rate: float | None, as_json: bool, **values: Any) -> None:
    """Tell windows, blocks, hours and space of a map. Nothing is segmented.

    \b
    Example:
      unigeoseg map plan --model runs/quickstart/export --input 'tiles/*.tif' --question "Where?" --out mapped
    """
    from pipelines.maps.planning import plan_map

    emit(plan_map(_request(values), rate), as_json, _plan_text)


@map_group.command("run")
@_with_options
@click.option("--resume", is_flag=True, help="Go on with the same map in --out, to the same bytes.")
@click.option("--yes", is_flag=True, help="Map more than a million windows.")
@click.option(
    "--max-failed",
    type=click.FloatRange(0, 1),
    default=0,
    show_default=True,
    metavar="SHARE",
    help="Share of blocks or prompts that may fail; more make the exit code 1. Their pixels are 254.",
)
@json_option
def run_command(as_json: bool, **values: Any) -> None:
    """Map rasters: masks, scores, objects, a report.

    In --out: mask.tif and score.tif (COG), objects.gpkg, map.json, failed.jsonl, report.html. A mask is 1
    where the instruction holds, 0 where not, 254 where nothing was computed, 255 where there is no data; a
    score is the probability times 250.

    \b
    Examples:
      unigeoseg map run --model runs/quickstart/export --input city.tif --text "the lakes" --out lakes
      unigeoseg map --model runs/quickstart/export --input city.tif --text "the lake" --scope scene --out lake
      unigeoseg map --model runs/quickstart/export --input city.tif --text "the lakes" --out lakes --resume
    """
    from pipelines.maps.make import failed_share, make_map

    request = _request(values)
    result = make_map(request, not as_json)
    emit(result, as_json, _map_text)
    if failed_share(result) > request.max_failed:
        sys.exit(1)


@map_group.command()
@click.argument("folder", metavar="MAP")
@click.option(
    "--format",
    "formats",
    type=click.Choice(["gpkg", "parquet", "geojson"]),
    multiple=True,
    required=True,
    help="Of the objects. Repeatable.",
)
@click.option(
    "--simplify", type=click.FloatRange(0), default=0, metavar="PIXELS", help="Tolerance of outlines."
)
@click.option("--crs", metavar="EPSG:…", help="To put them in; default: the raster's (GeoJSON: degrees).")
@click.option("--out", required=True, metavar="DIR", help="For the files.")
@json_option
def export(
    folder: str, formats: tuple[str, ...], simplify: float, crs: str | None, out: str, as_json: bool
) -> None:
    """Write a finished map's objects in another form.

    In another format, with simplified outlines, or in another CRS.

    \b
    Example:
      unigeoseg map export lakes --format geojson --simplify 1 --out lakes-geojson
    """
    from pipelines.maps.export import export_map

    emit(export_map(folder, out, formats, simplify, crs), as_json, lambda r: "\n".join(r["outputs"].values()))


map_group.add_command(assess)


def _plan_text(result: dict[str, Any]) -> str:
    lines = [
        f"{one['path']}: {one['width']} x {one['height']} pixels, {one['windows']:,} windows in "
        f"{one['blocks']:,} blocks, {one['crs'] or 'no CRS'}"
        for one in result["inputs"][:_SHOWN]
    ]
    lines.append(
        f"{result['windows']:,} windows, about {result['hours']:.2f} hours at "
        f"{result['windows_per_second']:.3g} windows/s, {result['gib']:.2f} GiB on disk"
    )
    return "\n".join([*lines, *(f"warning: {text}" for text in result["warnings"])])


def _map_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['objects']:,} objects in {result['computed']:,} windows; {result['skipped']:,} windows "
        f"without data, {result['failed']} parts failed"
    ]
    for one in result.get("inputs", [result])[:_SHOWN]:
        lines += [f"  {path}" for path in one["outputs"].values()]
    return "\n".join(lines)
