"""``unigeoseg map assess``: how right a finished map is."""

from typing import Any

import click

from jobs.options import emit, json_option, numbers

_SHOWN = 10
_MEANINGS = {
    "IoU": "of what was found and what is there",
    "precision": "of what was found, how much is there (user's accuracy)",
    "recall": "of what is there, how much was found (producer's accuracy)",
    "F1": "of both",
    "accuracy": "of all pixels, how many are right",
}


@click.command()
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

    chosen = Chosen(truth, layer, _field_and_values(where), numbers(values, "--values") or ())
    emit(assess_map(folder, chosen, out, aoi, not as_json), as_json, _assessment_text)


def _field_and_values(where: str | None) -> tuple[str, tuple[str, ...]] | None:
    if where is None:
        return None
    field, equals, values = where.partition("=")
    if not field or not equals or not values:
        raise click.UsageError(f"--where {where}: give FIELD=VALUE, or FIELD=VALUE,VALUE")
    return field, tuple(values.split(","))


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
            else f"  threshold  {best['threshold']:.3f} would have the best IoU, {best['IoU']:.3f}"
        )
    for one in result.get("inputs", [])[:_SHOWN]:
        told = "-" if one["IoU"] is None else f"{one['IoU']:.3f}"
        lines.append(f"  IoU {told} of {one['pixels']['compared']:,} pixels: {one['map']}")
    warned = result["warnings"]
    lines += [f"warning: {text}" for text in warned[:_SHOWN]]
    if len(warned) > _SHOWN:
        lines.append(f"{len(warned) - _SHOWN} more warnings in assessment.json")
    return "\n".join([*lines, *(f"  {path}" for path in result["outputs"].values())])
