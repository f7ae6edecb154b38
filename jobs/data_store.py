"""``unigeoseg data merge`` and ``export``: stores into one store, a store into other forms."""

from typing import Any

import click

from jobs.options import emit, json_option
from unigeoseg.errors import UserError


@click.command()
@click.argument("stores", nargs=-1, required=True, metavar="STORE STORE...")
@click.option("--out", required=True, help="Where the store shall be: a folder or s3://bucket/prefix.")
@click.option(
    "--on-duplicate",
    type=click.Choice(("refuse", "first")),
    default="refuse",
    show_default=True,
    help="What to do with a sample id that occurs twice: stop and name it, or keep the earliest store's.",
)
@click.option(
    "--shard-mb",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Size of the new shards in MiB.",
)
@click.option("--force", is_flag=True, help="Replace a store that is already there.")
@json_option
def merge(
    stores: tuple[str, ...], out: str, on_duplicate: str, shard_mb: int, force: bool, as_json: bool
) -> None:
    """Make one store of several; splits and sample ids stay, shards are cut anew; a stopped merge goes on.

    \b
    Examples:
      unigeoseg data merge stores/loveda stores/potsdam --out stores/both
      unigeoseg data merge s3://bucket/a s3://bucket/b --on-duplicate first --out s3://bucket/all
    """
    from pipelines.curate.merge import merge_stores

    if len(stores) < 2:
        raise UserError("merge needs at least two stores: unigeoseg data merge A B --out STORE")
    emit(merge_stores(stores, out, on_duplicate, shard_mb * 1024 * 1024, force), as_json, _merge_text)


@click.command()
@click.argument("store")
@click.option(
    "--to",
    "form",
    required=True,
    type=click.Choice(("webdataset", "coco", "release-layout")),
    help="The form.",
)
@click.option(
    "--out",
    required=True,
    help="An empty or new folder or s3:// prefix; an unfinished export of the same goes on.",
)
@json_option
def export(store: str, form: str, out: str, as_json: bool) -> None:
    """Write a store in a form that other programs read.

    webdataset: a record a sample with image.png|jpg, mask.png and json; an image is repeated for each sample.
    coco: images/SPLIT/ and annotations/instances_SPLIT.json, an annotation a sample, masks as RLE.
    release-layout: SPLIT.json of {img, mask, json}, as GeoSeg-1M is released.

    \b
    Example:
      unigeoseg data export stores/synthetic --to coco --out synthetic-coco
    """
    from pipelines.curate.export import export_store

    emit(export_store(store, form, out), as_json, _export_text)


def _merge_text(result: dict[str, Any]) -> str:
    samples = ", ".join(f"{task} {count:,}" for task, count in result["samples"].items())
    lines = [f"samples: {samples}", f"images: {result['images']:,} in {result['shards']} shards"]
    if result["duplicates"]:
        lines.append(f"left out, their ids being in an earlier store: {result['duplicates']:,} samples")
    licences = ", ".join(f"{name} {count:,}" for name, count in result["licences"].items())
    return "\n".join([*lines, f"licences: {licences}", f"store: {result['store']}"])


def _export_text(result: dict[str, Any]) -> str:
    return (
        f"{result['samples']:,} samples on {result['images']:,} images in {result['files']:,} files: "
        f"{result['out']}"
    )
