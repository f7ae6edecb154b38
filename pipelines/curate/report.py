"""One page about a store that needs no other file: figures, histograms, sheets, licences, stages."""

import base64
from pathlib import Path
from typing import Any

import jinja2

from pipelines.build.preview import Choice, choices, contact_sheet, write_file
from pipelines.curate.pictures import draw_statistics
from pipelines.curate.statistics import statistics
from pipelines.store.scan import open_all_splits

_TITLES = {
    "tasks": "Samples of each task",
    "categories": "Categories",
    "sources": "Sources",
    "words": "Length of the instructions",
    "mask_share": "Size of the masks",
    "centres": "Where the masks lie",
    "resolution": "Sizes of the images",
}


def write_report(
    store: str, out: str, n: int = 12, seed: int = 0, images: int = 2000, progress: bool = True
) -> dict[str, Any]:
    """Writes the page of a finished store.

    Args:
        store: folder or ``s3://`` prefix.
        out: the HTML file.
        n: samples on each contact sheet.
        seed: of their choice.
        images: as :func:`statistics`.
        progress: shows progress on stderr.

    Returns:
        ``{"report", "sheets"}``.

    Raises:
        UserError: there is no finished store, or ``out`` cannot be written.
    """
    found = statistics(store, images, progress)
    index = open_all_splits(store)
    sheets = {
        name: _inline(sheet)
        for name, one in choices(index, Choice(n=n, seed=seed)).items()
        if (sheet := contact_sheet(index, one)) is not None
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        name=store.rstrip("/").rpartition("/")[2],
        card=index.card,
        found=found,
        pictures={_TITLES[name]: _inline(data) for name, data in draw_statistics(found).items()},
        sheets=sheets,
        bytes=sum(shard["bytes"] for shard in index.card.get("shards", [])),
    )
    write_file(out, page.encode("utf-8"))
    return {"report": out, "sheets": sorted(sheets)}


def _inline(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
