"""What a map would take: windows, blocks, hours, space; nothing is mapped for it."""

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipelines.evaluate.models import export_config, export_seen_at, find_export
from pipelines.evaluate.predict import none_rule
from pipelines.evaluate.presence import RULE, NoneRule
from pipelines.maps.grid import Grid, block_strides
from pipelines.maps.inputs import list_inputs, output_folders
from pipelines.maps.request import Request
from pipelines.maps.resolution import resolution_warnings
from pipelines.maps.scene import Scene, open_scenes
from pipelines.maps.shapes import Area, Prompts, lay_prompts, read_shapes
from pipelines.storage.libraries import check_libraries
from unigeoseg.errors import UserError
from unigeoseg.question import Question
from unigeoseg.samples.tokens import Tokenizer
from unigeoseg.segmenter import Segmenter, check_shape, load

#: More windows are only mapped when they are confirmed.
MOST_WINDOWS = 1_000_000
#: Bytes on disk of a mapped pixel: parts, drafts and both files, as noise compresses; and of an empty one.
_BYTES, _EMPTY = 2.5, 0.02
#: Ids of a tokenizer that was trained with its model, at most.
_OWN_VOCABULARY = 16_384
#: Windows that are timed.
_TIMED = 2
#: Words that mean one thing in a window and another in the whole.
_RELATIVE: Final = """
    largest biggest smallest longest shortest widest narrowest tallest highest lowest nearest closest farthest
    furthest leftmost rightmost topmost bottommost northernmost southernmost easternmost westernmost northern
    southern eastern western left right top bottom upper lower corner centre center middle
"""
_RELATIVE_WORDS: Final = frozenset(_RELATIVE.split())


@dataclass
class Sheet:
    """One raster of a map, and what is to be done with it.

    Attributes:
        scene: opened.
        folder: of its outputs.
        grid: its windows and blocks.
        area: what is mapped; ``None``: all.
        prompts: that lie on it; ``None``: every window is asked the same.
        windows: to be computed at most.
    """

    scene: Scene
    folder: Path
    grid: Grid
    area: Area | None
    prompts: Prompts | None
    windows: int

    @property
    def numbers(self) -> Sequence[int]:
        """Of its parts: blocks, row by row, or the prompts that lie on it."""
        if self.prompts is not None:
            return [prompt.number for prompt in self.prompts.inside]
        down, across = self.grid.blocks
        return range(down * across)

    @property
    def parts(self) -> int:
        """How many there are."""
        return len(self.numbers)

    @property
    def bytes(self) -> float:
        """Of disk space, roughly."""
        whole = self.grid.height * self.grid.width
        if self.prompts is None:
            return _BYTES * whole
        seen = sum(p.window.height * p.window.width for p in self.prompts.inside)
        return _BYTES * min(seen, whole) + _EMPTY * whole


@dataclass
class Sheets:
    """A map that can begin.

    Attributes:
        request: what was asked for.
        model: where its export lies.
        question: of every window; ``None``: prompts.
        sheets: a raster each.
        warnings: what a person should know before.
        threshold: probability above which a pixel is foreground.
        rule: by which a window holds none of what is asked for, if the export has one.
    """

    request: Request
    model: str
    question: Question | None
    sheets: list[Sheet]
    warnings: list[str]
    threshold: float
    rule: NoneRule | None = None

    @property
    def windows(self) -> int:
        """To be computed at most."""
        return sum(sheet.windows for sheet in self.sheets)

    def without_sheets(self) -> "Sheets":
        """What all rasters share, for workers that open them one at a time."""
        return replace(self, sheets=[], warnings=[])


def lay_out(request: Request) -> Sheets:
    """Opens the inputs and lays windows on them; no pixel is segmented.

    Raises:
        UserError: something that is asked for cannot be done.
    """
    check_libraries()
    question = request.asked()
    model = find_export(request.model)
    config = export_config(model)
    size = config.image_size
    paths = list_inputs(request.inputs, request.asset)
    folders = output_folders(paths, request.out)
    frames = {
        option: read_shapes(path, option)
        for option, path in (("--prompts", request.prompts), ("--aoi", request.aoi))
        if path is not None
    }
    sheets, warnings, elsewhere = [], [], []
    for scene, folder in zip(open_scenes(paths, request, size), folders, strict=True):
        grid = Grid(scene.height, scene.width, size, request.strides or block_strides(size))
        if grid.single:
            shape = np.broadcast_to(np.uint8(0), (grid.height, grid.width, 3))
            check_shape(shape, size, config.vision.patch, scene.path)
        try:
            area = Area(frames["--aoi"], scene, f"--aoi {request.aoi}") if request.aoi else None
            what = f"--prompts {request.prompts}"
            prompts = lay_prompts(frames["--prompts"], scene, size, what) if request.prompts else None
        except UserError as error:
            if len(paths) == 1:
                raise
            elsewhere.append(str(error))
            continue
        windows = len(prompts.inside) if prompts else area.count(grid) if area else int(np.prod(grid.shape))
        sheets.append(Sheet(scene, folder, grid, area, prompts, windows))
        if prompts and prompts.outside and len(paths) == 1:
            warnings.append(
                f"{len(prompts.outside)} of {len(frames['--prompts'])} prompts lie outside {scene.path}: "
                + ", ".join(str(n) for n in prompts.outside[:10])
            )
    if not sheets:
        raise UserError(f"nothing to map: {elsewhere[0]}")
    warnings += [f"left out: {text}" for text in elsewhere]
    rule = none_rule(model, request.none) if question is not None else None
    if request.scope != "scene":
        looked = [sheet.scene for sheet in sheets if sheet.prompts or not sheet.grid.single]
        warnings += resolution_warnings(export_seen_at(model), looked)
    warnings += _word_warnings(request, question, sheets) + _none_warnings(request, question, rule, sheets)
    threshold = config.threshold if request.threshold is None else request.threshold
    return Sheets(request, model, question, sheets, warnings, threshold, rule)


def _word_warnings(request: Request, question: Question | None, sheets: Sequence[Sheet]) -> list[str]:
    if question is None or request.scope == "scene" or all(sheet.grid.single for sheet in sheets):
        return []
    relative = sorted({word.strip(".,;?!").lower() for word in question.text.split()} & _RELATIVE_WORDS)
    if not relative:
        return []
    return [
        f"{', '.join(map(repr, relative))} in the instruction means something else in every window: "
        "--scope scene looks once at the whole"
    ]


def _none_warnings(
    request: Request, question: Question | None, rule: NoneRule | None, sheets: Sequence[Sheet]
) -> list[str]:
    if question is None or rule is not None or request.none is False:
        return []
    if all(sheet.grid.single for sheet in sheets):
        return []
    return [
        f"{request.model} was never asked for what is not there ({RULE} is missing): it marks something in "
        "most windows; look at the scores (docs/samples.md: instruct.absent)"
    ]


def check_instruction(segmenter: Segmenter, sheets: Sheets) -> list[str]:
    """Warns of words that the model has not seen, as far as that can be told.

    Raises:
        UserError: an instruction is too long for the model.
    """
    size = segmenter.image_size
    questions = [sheets.question] if sheets.question else []
    questions += [p.question for sheet in sheets.sheets if sheet.prompts for p in sheet.prompts.inside[:1]]
    for question in questions:
        segmenter.check(np.zeros((size, size, 3), np.uint8), question)
    if sheets.question is None:
        return []
    unknown = unknown_words(segmenter.tokenizer, sheets.question.text)
    if not unknown:
        return []
    named = ", ".join(map(repr, unknown))
    return [f"the model's training texts seldom or never said {named}: what it marks may mean nothing"]


def unknown_words(tokenizer: Tokenizer, text: str) -> list[str]:
    """Words of an instruction that a tokenizer which was trained with its model only knows in pieces.

    Such a tokenizer has the words of its training texts whole, up to its few thousand ids. A pretrained one
    has the words of its language, which says nothing of what its model has seen: no words then.
    """
    if tokenizer.vocab_size > _OWN_VOCABULARY:
        return []
    words = dict.fromkeys(re.findall(r"[^\W\d_]+", text))

    def known(word: str) -> bool:
        low = word.lower()
        forms = {word, low, f"{low}s", low.removesuffix("s"), low.removesuffix("es")}
        return any(len(tokenizer.encode(before + form)) == 1 for form in forms for before in (" ", ""))

    return [word for word in words if not known(word)]


def check_amount(sheets: Sheets) -> None:
    """Refuses what would not end well.

    Raises:
        UserError: too many windows that nobody confirmed, or too little space.
    """
    request = sheets.request
    if sheets.windows > MOST_WINDOWS and not request.yes:
        raise UserError(
            f"{sheets.windows:,} windows: unigeoseg map plan tells hours and space; --yes confirms, --aoi "
            "and --gsd make it less"
        )
    needed = sum(sheet.bytes for sheet in sheets.sheets)
    folder = Path(request.out).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"--out {request.out}: {needed / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB free: make "
            "room, or map less (--aoi, --gsd)"
        )


def plan_map(request: Request, rate: float | None = None) -> dict[str, Any]:
    """Windows, blocks, hours and space of a map.

    Args:
        request: the map.
        rate: windows a second; ``None``: the model is timed on two grey windows.

    Returns:
        ``{"windows", "blocks", "hours", "gib", "windows_per_second", "inputs", "warnings"}``.

    Raises:
        UserError: as for the map itself.
    """
    sheets = lay_out(request)
    if rate is None:
        segmenter = load(sheets.model, request.device)
        sheets.warnings += check_instruction(segmenter, sheets)
        rate = windows_per_second(segmenter, sheets.question or Question.ask(box=(0.25, 0.25, 0.75, 0.75)))
    return {
        "windows": sheets.windows,
        "blocks": sum(sheet.parts for sheet in sheets.sheets),
        "hours": _windows_computed(sheets) / rate / 3600,
        "gib": sum(sheet.bytes for sheet in sheets.sheets) / 2**30,
        "windows_per_second": rate,
        "inputs": [
            {
                "path": sheet.scene.path,
                "height": sheet.grid.height,
                "width": sheet.grid.width,
                "crs": sheet.scene.crs.to_string() if sheet.scene.crs else None,
                "gsd": sheet.scene.gsd,
                "windows": sheet.windows,
                "blocks": sheet.parts,
            }
            for sheet in sheets.sheets
        ],
        "warnings": sheets.warnings,
    }


def _windows_computed(sheets: Sheets) -> float:
    """With those that two blocks compute."""
    total = 0.0
    for sheet in sheets.sheets:
        twice = 1.0
        if sheet.prompts is None and not sheet.grid.single:
            counts = [
                [
                    len(ranges[axis])
                    for ranges in (sheet.grid.windows_of(sheet.grid.block(*n)) for n in numbers)
                ]
                for axis, numbers in enumerate(_lines(sheet.grid))
            ]
            twice = float(np.prod([sum(c) / n for c, n in zip(counts, sheet.grid.shape, strict=True)]))
        total += sheet.windows * twice
    return total


def _lines(grid: Grid) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The first column and the first row of blocks."""
    down, across = grid.blocks
    return [(row, 0) for row in range(down)], [(0, column) for column in range(across)]


def windows_per_second(segmenter: Segmenter, question: Question) -> float:
    """The model's own speed on this machine, from grey windows."""
    size = segmenter.image_size
    grey = np.full((size, size, 3), 128, np.uint8)
    segmenter.logits([grey], [question])
    start = time.perf_counter()
    for _ in range(_TIMED):
        segmenter.logits([grey], [question])
    return _TIMED / (time.perf_counter() - start)
