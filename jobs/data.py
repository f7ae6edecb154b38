"""``unigeoseg data``: make a store from a source, print its card, check its records."""

import json
import os
import sys
from typing import Any

import click

from jobs.intention import build_text
from jobs.options import dry_run_option, emit, json_option, preset_option, set_option
from jobs.settings import load_build_config


@click.group()
def data() -> None:
    """Make, check and look at stores."""


@data.command()
@click.option(
    "--source", required=True, help="A name from `unigeoseg data sources`, or a YAML file of yours."
)
@click.option("--root", help="Folder of the source, or s3:// or https:// (synthetic takes none).")
@click.option("--out", required=True, help="Where the store shall be: a folder or s3://bucket/prefix.")
@preset_option(required=False, default=None, help="Take the build section of this preset as the base.")
@set_option(help="Override one value, for example --set tile.size=256 or --set source.scenes=500.")
@click.option("--force", is_flag=True, help="Replace a store, or an unfinished build, that is already there.")
@click.option(
    "--keep-going",
    is_flag=True,
    help="Leave out images that cannot be used, however many there are; they are counted and named.",
)
@dry_run_option
@json_option
def build(
    source: str,
    root: str | None,
    out: str,
    preset: str | None,
    sets: tuple[str, ...],
    force: bool,
    keep_going: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a store from a source by the construction rules; an interrupted build goes on where it stopped.

    \b
    Examples:
      unigeoseg data build --source synthetic --out stores/synthetic --set source.scenes=500
      unigeoseg data build --source synthetic --out stores/absent --set instruct.absent=0.25
      unigeoseg data build --source dubai --root "Semantic segmentation dataset" --out s3://bucket/dubai
      unigeoseg data build --source my-city.yaml --root imagery --out stores/my-city
    """
    from pipelines.build.build import build_store, describe_build
    from pipelines.curate.table10 import table10
    from pipelines.store.index import read_card

    config = load_build_config(preset, [text.removeprefix("build.") for text in sets])
    if keep_going:
        config = config.model_copy(update={"max_bad_share": 1.0})
    if dry_run:
        emit(describe_build(source, root, out, config), as_json, build_text)
        return
    result = build_store(source, root, out, config, force=force)
    emit(result | {"table10": table10(read_card(out))}, as_json, _build_text)


@data.command()
@click.argument("store")
@json_option
def info(store: str, as_json: bool) -> None:
    """Print what a store says of itself (dataset.json).

    \b
    Example:
      unigeoseg data info stores/synthetic --json
    """
    from pipelines.store.index import read_card

    emit(read_card(store), as_json, _info_text)


@data.command()
@click.argument("store")
@click.option("--workers", type=click.IntRange(1), help="Processes, a shard each; default: one a core.")
@json_option
def lint(store: str, workers: int | None, as_json: bool) -> None:
    """Open every record of a store and check it; exit code 2 when something is wrong.

    Checked are: shards against their checksums, images, masks and their sizes, coordinates inside the masks,
    categories, whether referring phrases name theirs and reasoning questions do not, the area rules, scenes
    in two splits, ids, that what is said to be absent has no mask and no other sample shows it, pictures
    (also scaled or compressed anew) and instructions that occur twice; pictures of one colour or nearly
    black, masks of the whole picture, of one pixel or where nothing is seen; control characters and text in
    another script than nearly all of the store.

    \b
    Example:
      unigeoseg data lint stores/synthetic
    """
    from pipelines.curate.lint import lint_store

    result = lint_store(store, workers=workers or os.cpu_count() or 1)
    emit(result, as_json, _lint_text)
    if result["errors"]:
        sys.exit(2)


def _build_text(result: dict[str, Any]) -> str:
    from pipelines.curate.table10 import table10_text

    lines = [f"{'stage':<12} {'unit':<8} {'in':>10} {'out':>10}  dropped"]
    for row in result["stages"]:
        dropped = ", ".join(f"{reason} {count}" for reason, count in row["dropped"].items())
        if noted := ", ".join(f"{remark} {count}" for remark, count in row.get("noted", {}).items()):
            dropped += f"  ({noted})"
        lines.append(f"{row['name']:<12} {row['unit']:<8} {row['in']:>10} {row['out']:>10}  {dropped}")
    samples = ", ".join(f"{task} {count}" for task, count in result["samples"].items())
    lines += ["", table10_text(result["table10"]), "", f"samples: {samples}", f"store: {result['store']}"]
    for row in result["stages"]:
        for reason, names in row.get("named", {}).items():
            lines.append(f"{row['name']}, {reason.replace('_', ' ')}: {'; '.join(names)}")
    lines += [f"left out: {bad['file']}: {bad['detail']}" for bad in result["quarantined"]]
    if "endpoint" in result:
        lines += [f"endpoint, {name}: {json.dumps(row)}" for name, row in result["endpoint"].items()]
    return "\n".join(lines)


def _info_text(card: dict[str, Any]) -> str:
    lines = [f"{card.get('samples')} samples on {card.get('images')} images of {card.get('scenes')} scenes"]
    counts = card.get("counts", {})
    for name in ("task", "split", "source", "category"):
        listed = ", ".join(f"{key} {count}" for key, count in counts.get(name, {}).items())
        lines.append(f"{name}: {listed}")
    for kind, tasks in counts.get("kind", {}).items():
        listed = ", ".join(f"{task} {count}" for task, count in tasks.items())
        lines.append(f"{kind}: {listed}")
    if own := card.get("own_splits"):
        listed = ", ".join(f"{key} {count} images" for key, count in own.items())
        lines.append(f"splits as the source has them: {listed}")
    lines += [f"a scene of {source}: {_scene_text(row)}" for source, row in card.get("scene_of", {}).items()]
    words = ", ".join(f"{task} {mean:.1f}" for task, mean in card.get("instruction_words", {}).items())
    lines.append(f"mean words of an instruction: {words}")
    variety = card.get("instruction_variety", {})
    listed = ", ".join(
        f"{task} {row['distinct_2']:.3f} of {row['instructions']}" for task, row in variety.items()
    )
    lines.append(f"distinct-2 of instructions: {listed}")
    lines.append(f"licences: {', '.join(card.get('licences', {}))}")
    shards = card.get("shards", [])
    size = sum(shard["bytes"] for shard in shards)
    lines.append(
        f"{len(shards)} shards, {size / 2**20:.1f} MiB; configuration {card.get('config_hash', '')[:12]}"
    )
    return "\n".join(lines)


def _scene_text(row: dict[str, Any]) -> str:
    tile, stride = row["tile"], row["stride"]
    if tile is None:
        return f"{row['is']}, not cut into tiles"
    overlap = max(tile - stride, 0)
    shared = f"neighbours share {overlap} pixels ({overlap / tile:.0%})" if overlap else "none overlap"
    return f"{row['is']}; tiles of {tile} pixels every {stride}, {shared}"


def _lint_text(result: dict[str, Any]) -> str:
    lines = [f"{error['sample_id']}: {error['reason']}" for error in result["errors"][:50]]
    more = len(result["errors"]) - len(lines)
    lines += [f"... and {more} more"] if more > 0 else []
    return "\n".join([*lines, f"{result['records']} records, {len(result['errors'])} errors"])


if __name__ == "__main__":
    from jobs.cli import run

    run(data)
