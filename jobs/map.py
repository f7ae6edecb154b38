"""``unigeoseg map``: instructions over whole rasters."""

import sys
from collections.abc import Callable
from typing import Any

import click

from jobs.options import (
    count_range,
    device_option,
    emit,
    json_option,
    resource_options,
    threshold_option,
    with_options,
)

_SHOWN = 10
_MEANINGS = {
    "IoU": "of what was found and what is there",
    "precision": "of what was found, how much is there (user's accuracy)",
    "recall": "of what is there, how much was found (producer's accuracy)",
    "F1": "of both",
    "accuracy": "of all pixels, how many are right",
}


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


def _numbers(text: str | None, option: str) -> Any:
    """Comma-separated numbers."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.UsageError(f"{option} {text}: give numbers with commas") from error


def _stretch(text: str) -> Any:
    if text in ("auto", "none", "percentile"):
        return text
    limits = _numbers(text, "--stretch")
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

    bands = _numbers(values.pop("bands"), "--bands")
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


@map_group.command()
@click.argument("folder", metavar="MAP")
@click.option(
    "--truth",
    required=True,
    metavar="FILE",
    help="Polygons (GeoPackage, GeoJSON, GeoParquet, shapefile), or a raster of values; any CRS.",
)
@click.option("--layer", metavar="NAME", help="Of a vector file that has several.")
@click.option("--where", metavar="FIELD=VALUE[,VALUE]", help="Polygons that count, by a field; default: all.")
@click.option("--values", metavar="1[,2]", help="Of a raster, those that count; default: all but 0.")
@click.option("--aoi", metavar="FILE", help="Polygons: compare nothing outside them.")
@click.option("--out", required=True, metavar="DIR", help="New folder.")
@json_option
def assess(
    folder: str, truth: str, layer: str | None, where: str | None, values: str | None, aoi: str | None,
    out: str, as_json: bool,
) -> None:  # fmt: skip
    """Compare a finished map with what is known to be there.

    Tells IoU, precision (user's accuracy), recall (producer's accuracy) and F1 of pixels and of objects, and
    what other thresholds would give. In --out: assessment.json, assessment.png, errors.tif (1 found and
    there, 2 found but not there, 3 there but not found, 0 neither, 255 not compared), and errors.gpkg with
    the objects that were missed and those that are false.

    \b
    Examples:
      unigeoseg map assess lakes --truth lakes.gpkg --where kind=lake --aoi surveyed.gpkg --out lakes-accuracy
      unigeoseg map assess lakes --truth landcover.tif --values 5,6 --out lakes-accuracy
    """
    from pipelines.maps.assessment.assess import assess_map
    from pipelines.maps.assessment.truth import Chosen

    chosen = Chosen(truth, layer, _field_and_values(where), _numbers(values, "--values") or ())
    emit(assess_map(folder, chosen, out, aoi, not as_json), as_json, _assessment_text)


def _field_and_values(where: str | None) -> tuple[str, tuple[str, ...]] | None:
    if where is None:
        return None
    field, equals, values = where.partition("=")
    if not field or not equals or not values:
        raise click.UsageError(f"--where {where}: give FIELD=VALUE, or FIELD=VALUE,VALUE")
    return field, tuple(values.split(","))


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


def _assessment_text(result: dict[str, Any]) -> str:
    pixels, spread = result["pixels"], result["spread"] or {}
    lines = [
        f"{result['map']} against {result['truth']['path']}: {pixels['compared']:,} pixels compared, "
        f"{pixels['left_out']:,} left out"
    ]
    for name, meaning in _MEANINGS.items():
        value, limits = result[name], spread.get(name)
        told = "-" if value is None else f"{value:.3f}"
        between = f"  ({limits[0]:.3f} to {limits[1]:.3f})" if limits else ""
        lines.append(f"  {name:<10} {told}{between:<20}  {meaning}".rstrip())
    if result["area_m2"]:
        area = result["area_m2"]
        lines.append(f"  area       {area['map']:,.0f} m2 mapped, {area['truth']:,.0f} m2 in the truth")
    if result["objects"]:
        o = result["objects"]
        lines.append(
            f"  objects    {o['matched']:,} of {o['truth']:,} found (IoU from 0.5 on), "
            f"{o['missed']:,} missed, {o['false']:,} false"
        )
    if result["thresholds"]:
        best, rows = result["thresholds"]["best"], result["thresholds"]["curve"]
        lines.append(
            f"  threshold  none is better than to mark everything, IoU {best['IoU']:.3f}"
            if best == rows[-1]
            else f"  threshold  {best['threshold']:.2f} would have the best IoU, {best['IoU']:.3f}"
        )
    for one in result.get("inputs", [])[:_SHOWN]:
        told = "-" if one["IoU"] is None else f"{one['IoU']:.3f}"
        lines.append(f"  IoU {told} of {one['pixels']['compared']:,} pixels: {one['map']}")
    lines += [f"warning: {text}" for text in result["warnings"]]
    return "\n".join([*lines, *(f"  {path}" for path in result["outputs"].values())])
