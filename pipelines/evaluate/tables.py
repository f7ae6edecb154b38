"""The result of an evaluation as a table: for a terminal, and in Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.evaluate.presence import in_words as absent_in_words
from pipelines.evaluate.thresholds import in_words

#: Groups of the Markdown document after the main table: key of the result, heading of the first column.
_GROUPS = (
    ("sizes", "size of the target (share of the image)"),
    ("categories", "category"),
    ("sources", "source"),
    ("subtasks", "kind"),
)


def terminal_table(result: Mapping[str, Any]) -> str:
    """A line a task and one for all, columns aligned."""
    header, *rows = _main(result)
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = [
        "  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True)) for line in (header, *rows)
    ]
    return "\n".join([*lines, *_remarks(result)])


def markdown_table(result: Mapping[str, Any]) -> str:
    """A Markdown document: the main table with published results, what it was measured on, and the groups."""
    layout = f" ({result['layout']})" if result.get("layout") else ""
    facts = (
        f"Model `{result['model']}`, data `{result['data']}`{layout}, split {result['split']}: "
        f"{result['samples']['evaluated']} of {result['samples']['split']} samples, "
        f"{result['image_size']} pixels. {result['conventions']}."
    )
    parts = [*_markdown(_main(result)), "", facts, *_remarks(result)]
    for key, heading in _GROUPS:
        groups = result.get(key) or {}
        if len(groups) > 1:
            parts += ["", *_markdown([_header(result, heading), *_rows(result, groups.items())])]
    return "\n".join(parts) + "\n"


def _main(result: Mapping[str, Any]) -> list[list[str]]:
    ours = [*result["tasks"].items(), ("overall", result["overall"])]
    rows = [_header(result, "task"), *_rows(result, ours)]
    for row in result.get("published", {}).get("rows", ()):
        numbers = row["metrics"]
        cells = [f"{numbers[key]:.3f}" if key in numbers else "" for key in ("gIoU", *_shares(result))]
        rows.append([f"{row['task'] or 'all'}: {row['method']}", "", cells[0], "", *cells[1:]])
    return rows


def _header(result: Mapping[str, Any], first: str) -> list[str]:
    return [first, "n", "gIoU", "95 %", *_shares(result)]


def _shares(result: Mapping[str, Any]) -> list[str]:
    return ["cIoU", *(key for key in result["overall"] if key.startswith("Pr@"))]


def _rows(result: Mapping[str, Any], groups: Iterable[tuple[str, Mapping[str, Any]]]) -> list[list[str]]:
    rows = []
    for name, m in groups:
        low, high = m["ci95"]["gIoU"]
        numbers = [f"{m[key]:.3f}" for key in _shares(result)]
        rows.append([name, str(m["n"]), f"{m['gIoU']:.3f}", f"{low:.3f}-{high:.3f}", *numbers])
    return rows


def _markdown(rows: list[list[str]]) -> list[str]:
    header, *rest = rows
    lines = (header, ["---"] + ["---:"] * (len(header) - 1), *rest)
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]


def stretched_in_words(stretched: Mapping[str, Any]) -> str:
    """What became of masks of another size than their picture, and which those are."""
    named = "; ".join(
        f"{one['sample_id']} ({one['mask'][1]}x{one['mask'][0]} on a picture of "
        f"{one['image'][1]}x{one['image'][0]})"
        for one in stretched["named"]
    )
    return f"{stretched['n']} truth masks were stretched to pictures of another size: {named}."


def files_in_words(files: Mapping[str, Any]) -> str:
    """Files of a benchmark that are spelled otherwise than it says."""
    said = (
        f"{one['n']} {reason.replace('_', ' ')} ({', '.join(one['named'])})" for reason, one in files.items()
    )
    return f"Files: {'; '.join(said)}."


def _remarks(result: Mapping[str, Any]) -> list[str]:
    found = []
    if result["unusable"]:
        found.append(f"{len(result['unusable'])} samples could not be used; evaluation.json names them.")
    if (stretched := result.get("stretched") or {}).get("n"):
        found.append(stretched_in_words(stretched))
    if files := result.get("files"):
        found.append(files_in_words(files))
    if result.get("vanished"):
        found.append(f"{result['vanished']} targets have no pixel left at the size of comparison.")
    if words := in_words(result.get("threshold") or {}):
        found.append(words)
    if words := absent_in_words(result.get("none") or {}):
        found.append(words)
    published = result.get("published", {})
    if published.get("missing"):
        found.append(
            f"Not beside it, because they could not be read: {', '.join(published['missing'])}. "
            "Add them with --published FILE."
        )
    sources = sorted({row["source"] for row in published.get("rows", ())})
    if sources:
        found.append(f"Published: {'; '.join(sources)}.")
    return [line for remark in found for line in ("", remark)]
