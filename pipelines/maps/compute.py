"""A block of a raster, or the window of a prompt, computed: the same in this process and elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.presence import NoneRule, picture_scores
from pipelines.maps.blend import NO_DATA, NOT_COMPUTED, Sums, of_one_view
from pipelines.maps.grid import Grid, Rect
from pipelines.maps.pieces import Piece, find_pieces
from pipelines.maps.scene import Scene
from pipelines.maps.shapes import Area, Prompt
from pipelines.maps.work import Part
from pipelines.storage.libraries import library
from unigeoseg.metrics import logit
from unigeoseg.outlines import mask_polygons
from unigeoseg.question import Question
from unigeoseg.samples.letterbox import unletterbox
from unigeoseg.segmenter import Segmenter

#: Share of a window that must hold data.
LEAST_VALID = 0.01
#: How far below the threshold's logit a window that holds none stays.
_DOUBT = 0.5


@dataclass(frozen=True)
class Mapper:
    """What computes parts of one raster.

    Attributes:
        segmenter: the model.
        scene: the raster.
        grid: its windows and blocks.
        threshold: probability in (0, 1) above which a pixel is foreground.
        question: of every window; prompts have their own.
        area: what is mapped; ``None``: all.
        batch: windows computed at once.
        rule: by which a window holds none of what is asked for.
    """

    segmenter: Segmenter
    scene: Scene
    grid: Grid
    threshold: float
    question: Question | None = None
    area: Area | None = None
    batch: int = 1
    rule: NoneRule | None = None

    def block(self, row: int, column: int) -> Part:
        """A block by its place among the blocks."""
        block = self.grid.block(row, column)
        number = row * self.grid.blocks[1] + column
        if self.grid.single:
            mask, score, computed = self._single(block)
            counts = (computed, 1 - computed)
        else:
            mask, score, counts = self._windows(block, (row, column))
        pieces, borders = find_pieces(mask, score, block, self.grid.whole)
        return Part(number, block, mask, score, pieces, borders, *counts)

    def _inside(self, part: Rect, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return valid if self.area is None else valid & self.area.inside(part)

    def _single(self, block: Rect) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
        """A raster that one window holds: what ``predict`` would say of it."""
        assert self.question is not None
        pixels, data = self.scene.read(block)
        valid = self._inside(block, data)
        if valid.mean() < LEAST_VALID:
            mask = np.where(valid, NOT_COMPUTED, NO_DATA).astype(np.uint8)
            return mask, mask.copy(), 0
        (logits,) = self._looked_at([pixels], self.question)
        return *of_one_view(logits, valid, self.threshold), 1

    def _looked_at(
        self, pictures: Sequence[NDArray[np.uint8]], question: Question
    ) -> list[NDArray[np.float32]]:
        """Logits of pictures; where a picture has none of what is asked for, nothing speaks for it.

        Such a picture's logits stay below the threshold, and do not speak against what a window beside it
        sees better.
        """
        squares = self.segmenter.squares(pictures, [question] * len(pictures))
        found = []
        for square, picture in zip(squares, pictures, strict=True):
            height, width = picture.shape[:2]
            logits = unletterbox(square, height, width)
            if self.rule and self.rule.none(picture_scores(square, height, width, self.threshold)):
                logits = np.minimum(logits, np.float32(logit(self.threshold) - _DOUBT))
            found.append(logits)
        return found

    def _windows(
        self, block: Rect, number: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[int, int]]:
        grid, sums = self.grid, Sums(self.grid, block)
        valid = np.zeros((block.height, block.width), bool)
        rows, columns = grid.windows_of(block)
        counts, held = [0, 0], []
        for at in ((row, column) for row in rows for column in columns):
            window = grid.window(*at)
            inside = window.cut(grid.whole)
            if self.area is not None and not self.area.meets(inside):
                continue
            pixels, data, part = self.scene.window(window)
            there = self._inside(part, data)
            shown = part.cut(block)
            valid[shown.inside(block)] = there[shown.inside(part)]
            enough = there.mean() >= LEAST_VALID
            counts[not enough] += grid.owns(number, at)
            if enough:
                held.append((at, pixels))
            if len(held) == self.batch:
                self._add(sums, held)
                held = []
        self._add(sums, held)
        return *sums.finish(valid, self.threshold), (counts[0], counts[1])

    def _add(self, sums: Sums, held: Sequence[tuple[tuple[int, int], NDArray[np.uint8]]]) -> None:
        if not held:
            return
        assert self.question is not None
        found = self._looked_at([pixels for _, pixels in held], self.question)
        for (at, _), logits in zip(held, found, strict=True):
            sums.add(*at, logits)

    def prompt(self, prompt: Prompt) -> Part:
        """The window of a prompt: one object, of all that was marked."""
        window = prompt.window
        pixels, data = self.scene.read(window)
        valid = self._inside(window, data)
        if valid.mean() < LEAST_VALID:
            mask = np.where(valid, NOT_COMPUTED, NO_DATA).astype(np.uint8)
            return Part(prompt.number, window, mask, mask, [], None, 0, 1)
        (logits,) = self.segmenter.logits([pixels], [prompt.question])
        mask, score = of_one_view(logits, valid, self.threshold)
        pieces = [one] if (one := self._marked(mask, score, window)) else []
        return Part(prompt.number, window, mask, score, pieces, None, 1, 0)

    def _marked(self, mask: NDArray[np.uint8], score: NDArray[np.uint8], window: Rect) -> Piece | None:
        """All foreground of a window as one piece; ``None`` where there is none."""
        shapely = library("shapely")
        marked = mask == 1
        if not marked.any():
            return None
        polygons = [
            shapely.Polygon(shape["coordinates"][0], shape["coordinates"][1:])
            for shape in mask_polygons(marked)
        ]
        outline = shapely.transform(
            shapely.MultiPolygon(polygons), lambda points: points + np.asarray([window.left, window.top])
        )
        values = score[marked].astype(np.int64)
        first = int(np.flatnonzero(marked)[0])
        edges = (marked[0], marked[-1], marked[:, 0], marked[:, -1])
        return Piece(
            label=1,
            row=first // window.width + window.top,
            column=first % window.width + window.left,
            area=int(marked.sum()),
            score_sum=int(values.sum()),
            score_max=int(values.max()),
            cut=any(bool(edge.any()) for edge in edges),
            edge=False,
            outline=shapely.to_wkb(outline),
        )
