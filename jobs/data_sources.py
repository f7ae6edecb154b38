"""``unigeoseg data sources`` and ``data unpack``: which data sets can be built, and unpacking them."""

from pathlib import Path
from typing import Any

import click

from jobs.options import emit, json_option


@click.command()
@click.argument("name", required=False)
@json_option
def sources(name: str | None, as_json: bool) -> None:
    """List the sources of `data build`, or show one: layout, licence, where to get it, classes.

    NAME is a source, or a YAML file of yours that describes one.

    \b
    Examples:
      unigeoseg data sources
      unigeoseg data sources loveda
      unigeoseg data sources my-city.yaml
    """
    from pipelines.build.sources.catalogue import describe_source, list_sources

    if name is None:
        emit(list_sources(), as_json, _list_text)
    else:
        emit(describe_source(name), as_json, _page_text)


@click.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="New folder; default: beside the archive.")
@json_option
def unpack(archive: Path, out: Path | None, as_json: bool) -> None:
    """Unpack a downloaded zip or tar safely: no member leaves the folder, no bomb fills the disk.

    \b
    Example:
      unigeoseg data unpack Train.zip --out loveda
    """
    from pipelines.build.sources.archive import unpack as unpack_archive

    name = archive.name.partition(".")[0] or "unpacked"
    result = unpack_archive(archive, out or archive.with_name(name))
    emit(result, as_json, lambda r: f"{r['files']} files, {r['bytes'] / 2**20:.1f} MiB in {r['out']}")


def _list_text(result: dict[str, Any]) -> str:
    rows = result["sources"]
    lines = [f"{'source':<12} {'kind':<10} {'classes':>7}  {'licence':<36} title"]
    lines += [
        f"{row['name']:<12} {row['kind']:<10} {row['classes'] or '':>7}  "
        f"{row['licence'][:35]:<36} {row['title']}"
        for row in rows
    ]
    lines += [
        "",
        "unigeoseg data sources NAME shows one with its classes; a YAML file of yours works as NAME too.",
    ]
    return "\n".join(lines)


def _page_text(page: dict[str, Any]) -> str:
    facts = [
        ("title", "title"),
        ("kind", "kind"),
        ("licence", "licence"),
        ("", "licence_note"),
        ("get it", "url"),
        ("paper", "paper"),
        ("--root holds", "expects"),
        ("encoding from", "encoding_source"),
        ("checked", "checked"),
        ("notes", "notes"),
    ]
    lines = [page["name"]]
    lines += [f"  {label:<14} {page[key]}" for label, key in facts if page.get(key)]
    if page.get("bands"):
        lines.append(f"  {'bands':<14} {', '.join(map(str, page['bands']))} as red, green, blue")
    for layout in page.get("layouts", ()):
        what = layout["mask"] or f"{layout['labels']} ({layout['boxes']})"
        lines.append(f"  layout {layout['name']:<16} {layout['image']}  →  {what}")
    classes = page.get("classes", [])
    if classes:
        lines += ["", f"  {'class':<44} {'value':>5}  {'colour':<15} category"]
    for row in classes:
        colour = ",".join(map(str, row["colour"])) if row["colour"] else ""
        category = f"{row['category_id']} {row['category']}" if row["category_id"] else "ignored"
        value = "" if row["value"] is None else row["value"]
        lines.append(f"  {row['name'][:43]:<44} {value:>5}  {colour:<15} {category}")
    return "\n".join(lines)


if __name__ == "__main__":
    from jobs.cli import run

    run(sources)
