"""The columns of the paper's Table 10 for a store, beside what the paper says of GeoSeg-1M."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from unigeoseg.tasks import TASKS


class Figure(BaseModel):
    """A figure of the paper: its value, how it is printed there, and where it stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    shown: str
    source: str


class Paper(BaseModel):
    """The content of ``table10.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    citation: str
    figures: dict[str, Figure]


@cache
def paper() -> Paper:
    """What the paper says."""
    text = Path(__file__).with_name("table10.yaml").read_text(encoding="utf-8")
    return Paper.model_validate(yaml.safe_load(text))


def table10(card: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows ``{"name", "store", "shown", "paper", "source"}`` from a store's card.

    ``store`` is the number (``None`` where the card lacks it), ``shown`` the same for people, ``paper`` the
    paper's figure as printed or ``None``, ``source`` where it stands there.
    """
    counts, words = card.get("counts", {}), card.get("instruction_words", {})
    size, variety = card.get("mask_size", {}), card.get("instruction_variety", {})
    rows = [
        _row("samples", "samples", card.get("samples")),
        *(_row(f"  {t}", f"samples_{t}", counts.get("task", {}).get(t, 0)) for t in TASKS),
        _row("images", "images", card.get("images")),
        _row("categories", "categories", len(counts.get("category", {}))),
        *(_row(f"mean words, {t}", f"words_{t}", words.get(t)) for t in TASKS),
        *(
            _row(f"distinct-2, {t}", f"distinct_2_{t}", variety.get(t, {}).get("distinct_2"), "{:.3f}")
            for t in TASKS
        ),
        _row("mean mask share", "mask_share", size.get("share", {}).get("mean"), "{:.2%}"),
        *(_row(f"  {t}", f"mask_share_{t}", size.get("share_by_task", {}).get(t), "{:.2%}") for t in TASKS),
        _row("mean mask pixels", "mask_pixels", size.get("pixels", {}).get("mean"), "{:,.0f}"),
    ]
    height, width = (card.get("resolution", {}).get(n, {}).get("median") for n in ("height", "width"))
    side = _row("median image (w x h)", "side", None)
    if height is not None and width is not None:
        side |= {"store": [width, height], "shown": f"{width:.0f} x {height:.0f}"}
    return [*rows, side]


def _row(name: str, key: str, value: float | None, form: str = "") -> dict[str, Any]:
    printed = paper().figures.get(key)
    if value is None:
        shown = "-"
    elif form:
        shown = form.format(value)
    else:
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
    return {
        "name": name,
        "store": value,
        "shown": shown,
        "paper": printed.shown if printed else None,
        "source": printed.source if printed else None,
    }


def table10_text(rows: list[dict[str, Any]]) -> str:
    """The rows as a table for a terminal; a figure that the paper's text here lacks is a dash."""
    lines = [f"{'':<22} {'this store':>14} {'GeoSeg-1M':>12}"]
    lines += [f"{row['name']:<22} {row['shown']:>14} {row['paper'] or '-':>12}" for row in rows]
    return "\n".join(lines)
