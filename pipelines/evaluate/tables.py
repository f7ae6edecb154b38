"""The result of an evaluation as a table: for a terminal, and in Markdown."""

from typing import Any

#: Columns of metrics after n and gIoU with its interval.
_SHARES = ("cIoU", "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9")


def terminal_table(result: dict[str, Any]) -> str:
    """A line a task and one for all, columns aligned."""
    header, *rows = _cells(result)
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = [
        "  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True)) for line in (header, *rows)
    ]
    return "\n".join([*lines, *_remarks(result)])


def markdown_table(result: dict[str, Any]) -> str:
    """The same as a Markdown document with what it was measured on."""
    header, *rows = _cells(result)
    lines = [f"| {' | '.join(line)} |" for line in (header, ["---"] + ["---:"] * (len(header) - 1), *rows)]
    facts = [
        "",
        f"Model `{result['model']}`, data `{result['data']}`, split {result['split']}: "
        f"{result['samples']['evaluated']} of {result['samples']['split']} samples, "
        f"{result['image_size']} pixels. {result['conventions']}.",
    ]
    return "\n".join([*lines, *facts, *_remarks(result)]) + "\n"


def _cells(result: dict[str, Any]) -> list[list[str]]:
    cells = [["task", "n", "gIoU", "95 %", *_SHARES]]
    for name, m in [*result["tasks"].items(), ("overall", result["overall"])]:
        low, high = m["ci95"]["gIoU"]
        shares = [f"{m[key]:.3f}" for key in _SHARES]
        cells.append([name, str(m["n"]), f"{m['gIoU']:.3f}", f"{low:.3f}-{high:.3f}", *shares])
    return cells


def _remarks(result: dict[str, Any]) -> list[str]:
    if not result["unusable"]:
        return []
    return ["", f"{len(result['unusable'])} samples could not be used; evaluation.json names them."]
