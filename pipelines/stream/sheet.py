"""A picture of what each worker gets: a row for a step and worker, a cell for a sample."""

import textwrap
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.build.preview import draw
from pipelines.plan.plan import Plan
from pipelines.store.index import StoreIndex
from pipelines.store.reader import Loaded, StoreReader
from unigeoseg.errors import UserError

_MOST = 256


def draw_sheet(plan: Plan, index: StoreIndex, steps: range, world: int, path: Path) -> None:
    """Writes a PNG with the samples of the steps, worker by worker, in plan order; bad ones say why.

    Raises:
        UserError: more samples than a picture holds, storage out of reach, or ``path`` cannot be written.
    """
    parts = [(step, rank, plan.rank_slice(step, rank, world)) for step in steps for rank in range(world)]
    total, columns = sum(len(p.rows) for _, _, p in parts), max(len(p.rows) for _, _, p in parts)
    if total > _MOST:
        fit = max(1, _MOST * len(steps) // total)
        raise UserError(f"--sheet: {total} samples, a sheet holds {_MOST}; ask for {fit} steps at once")
    reader = StoreReader(index)
    figure = Figure(figsize=(1.9 * columns + 0.4, 2.5 * len(parts)), layout="constrained")
    FigureCanvasAgg(figure)
    cells = figure.subplots(len(parts), columns, squeeze=False)
    for line, (step, rank, part) in zip(cells, parts, strict=True):
        for axis in line:
            axis.axis("off")
        for axis, loaded in zip(line, reader.load(part.rows), strict=False):
            _cell(axis, loaded)
        line[0].text(-0.08, 0.5, f"step {step}, worker {rank}", rotation=90, va="center", ha="right",
                     fontsize=8, transform=line[0].transAxes)  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=80, format="png")
    except OSError as error:
        raise UserError(f"--sheet {path}: {error}; name a file that you may write") from error


def _cell(axis: object, loaded: Loaded) -> None:
    if loaded.sample is None or loaded.image is None:
        words = f"{loaded.reason}: {loaded.detail}"
        axis.text(0.5, 0.5, textwrap.fill(words, 24), ha="center", fontsize=6, parse_math=False)  # type: ignore[attr-defined]
        text = loaded.sample_id
    else:
        axis.imshow(draw(loaded.image, loaded.sample))  # type: ignore[attr-defined]
        text = f"{loaded.sample_id}\n{loaded.sample.instruction}"
    lines = [line for part in text.split("\n") for line in textwrap.wrap(part, 34)[:2]]
    axis.set_title("\n".join(lines), fontsize=5.5, loc="left", parse_math=False)  # type: ignore[attr-defined]
