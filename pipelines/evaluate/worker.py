"""What one evaluation worker does: read a portion, predict once per image, measure, return a table."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from pipelines.evaluate.data import Index, open_index, open_reader
from pipelines.evaluate.models import ModelSource, best_device
from pipelines.evaluate.presence import picture_scores
from pipelines.evaluate.records import SCHEMA, Portion, describe, encode_mask
from pipelines.evaluate.selection import Rows
from pipelines.evaluate.thresholds import counts_at, levels_of, thresholds
from pipelines.evaluate.yardsticks import (
    Masks,
    all_foreground,
    category_masks,
    filled_box,
    pair_iou,
    swap_partners,
    swapped_ious,
)
from pipelines.store.reader import Loaded
from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.collate import BadSample, Collator
from unigeoseg.samples.letterbox import letterbox_mask, unletterbox
from unigeoseg.samples.sample import ImageGroup, Sample
from unigeoseg.samples.tokens import Tokenizer
from unigeoseg.tasks import INTERACTIVE

#: Of one sample or an image's samples: how many of the thresholds each pixel exceeds.
Levels = NDArray[np.uint8]


@dataclass(frozen=True)
class EvalJob:
    """What every worker of an evaluation needs to know.

    Attributes:
        store: folder or ``s3://`` prefix.
        split: of the store.
        model: the one under test.
        untrained: compared with it on the same batches, or ``None``.
        yardsticks: also measures swap, oracles and the all-foreground mask.
        keep_predictions: returns each prediction as RLE.
        max_instructions: most instructions in one forward pass.
        threads: CPU threads of a worker. Part of the job, because sums over another number of threads may
            round differently.
        layout: of a benchmark's folder; ``None`` where ``store`` is a store.
        compare: where masks are compared: on the ``letterbox`` square with its padding (the released
            evaluator), ``inside`` the image's part of the square, or at the image's ``original`` size.
        boxes: compares boxes of the largest components (visual grounding) instead of masks.
        threshold: probability above which a pixel is foreground.
        turn: whether a benchmark's pictures are turned as their EXIF orientation says.
    """

    store: str
    split: str
    model: ModelSource
    untrained: ModelSource | None = None
    yardsticks: bool = False
    keep_predictions: bool = False
    max_instructions: int = 64
    threads: int = 1
    layout: str | None = None
    compare: Literal["letterbox", "inside", "original"] = "letterbox"
    boxes: bool = False
    threshold: float = 0.5
    turn: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold {self.threshold} is no probability between 0 and 1")
        if self.yardsticks and (self.boxes or self.compare != "letterbox"):
            raise ValueError(
                "yardsticks are masks on the letterboxed square: boxes=False, compare='letterbox'"
            )


@dataclass(frozen=True)
class _Image:
    """One image: the samples to predict with their rows, and all of them when yardsticks are wanted."""

    pixels: NDArray[np.uint8]
    rows: list[int]
    samples: list[Sample]
    shown: list[Sample]
    mask_sizes: list[tuple[int, int] | None]


class Worker:
    """Loads the models once and evaluates portions; also the class behind the Ray actors.

    Args:
        job: what to do.
        loaded: a model and tokenizer already in memory, instead of ``job.model``.
        index: of the job's data, where it is open already.
    """

    def __init__(
        self,
        job: EvalJob,
        loaded: tuple[UniGeoSeg, Tokenizer] | None = None,
        index: Index | None = None,
    ) -> None:
        self._job, self._device = job, best_device()
        torch.set_num_threads(job.threads)
        model, tokenizer = loaded or job.model.load(self._device)
        self._device = str(next(model.parameters()).device)
        self._models = [model.eval()]
        if job.untrained:
            self._models.append(job.untrained.load(self._device)[0])
        self.image_size = model.config.image_size
        # No sample is too long for an evaluation: the language model's own limit decides.
        self._collator = Collator(tokenizer, model.config, model.config.language.max_positions)
        self._index = index or open_index(job.store, job.split, job.layout, job.turn)
        self._reader = open_reader(self._index)

    def evaluate(self, rows: Rows) -> Portion:
        """Evaluates these rows of the index; their images share nothing with other portions."""
        images, bad = self._read(rows)
        predictions, scores = self._predict(images)
        records: list[dict[str, Any]] = []
        for image in images:
            first, last = len(records), len(records) + len(image.samples)
            measured = self._measure(image, [np.stack(p[first:last]) for p in predictions])
            pairs = zip(measured, scores[first:last], strict=True)
            records += [record | {"presence": presence} for record, presence in pairs]
        return Portion(pa.Table.from_pylist(records, schema=SCHEMA), bad)

    def _read(self, rows: Rows) -> tuple[list[_Image], list[tuple[str, str]]]:
        wanted, image_of = set(rows.tolist()), self._index.images
        if self._job.yardsticks:  # the category oracle looks at all samples of an image
            rows = np.flatnonzero(np.isin(image_of, np.unique(image_of[rows])))
        grouped: dict[int, _Image] = {}
        bad = []
        for loaded in self._reader.load(rows):
            reason = self._unusable(loaded)
            if loaded.row in wanted and reason:
                bad.append((loaded.sample_id, reason))
            if reason or loaded.image is None or loaded.sample is None:
                continue
            image = grouped.setdefault(int(image_of[loaded.row]), _Image(loaded.image, [], [], [], []))
            image.shown.append(loaded.sample)
            if loaded.row in wanted:
                image.rows.append(loaded.row)
                image.samples.append(loaded.sample)
                image.mask_sizes.append(loaded.mask_size)
        return [image for image in grouped.values() if image.rows], bad

    def _unusable(self, loaded: Loaded) -> str:
        if loaded.image is None or loaded.sample is None:
            return loaded.reason
        try:
            self._collator.check(_question(loaded.sample), loaded.image)
        except BadSample as error:
            return error.reason
        return ""

    def _predict(self, images: Sequence[_Image]) -> tuple[list[list[Levels]], list[list[float] | None]]:
        """Predictions of each model at the size of comparison, for the samples of the images in order.

        Beside them the first model's :func:`~pipelines.evaluate.presence.picture_scores` of each; ``None`` of
        interactive ones, which mean what is there.
        """
        most = self._job.max_instructions
        pieces = [
            ImageGroup(image.pixels, tuple(_question(s) for s in image.samples[i : i + most]))
            for image in images
            for i in range(0, len(image.samples), most)
        ]
        found: list[list[Levels]] = [[] for _ in self._models]
        scores: list[list[float] | None] = []
        for part in _forward_parts(pieces, most):
            batch = self._collator(part).to(self._device)
            for levels, model in zip(found, self._models, strict=True):
                shapes = [piece.image.shape[:2] for piece in part for _ in piece.samples]
                logits = model.predict(batch).cpu().numpy()
                if levels is found[0]:
                    tasks = [sample.task for piece in part for sample in piece.samples]
                    scores += [self._presence(*one) for one in zip(logits, shapes, tasks, strict=True)]
                levels += [self._levels(*one) for one in zip(logits, shapes, strict=True)]
        return found, scores

    def _presence(self, logits: NDArray[np.float32], shape: tuple[int, int], task: str) -> list[float] | None:
        if task == INTERACTIVE:
            return None
        found: list[float] = picture_scores(logits, *shape, self._job.threshold).tolist()
        return found

    def _levels(self, logits: NDArray[np.float32], shape: tuple[int, int]) -> Levels:
        """Logits ``[S, S]`` where masks are compared, as thresholds that they exceed."""
        if self._job.compare == "original":
            return levels_of(unletterbox(logits, *shape), self._job.threshold)
        levels = levels_of(logits, self._job.threshold)
        if self._job.compare == "inside":
            levels *= all_foreground(*shape, self.image_size)
        return levels

    def _measure(self, image: _Image, levels: list[Levels]) -> list[dict[str, Any]]:
        truths, used = self._truths(image.samples), thresholds(self._job.threshold).index(self._job.threshold)
        predictions = [one > used for one in levels]
        records = []
        for row, sample, size, mask, truth, level in zip(
            image.rows, image.samples, image.mask_sizes, predictions[0], truths, levels[0], strict=True
        ):
            record = describe(row, sample, mask, truth, self._job.boxes) | {"mask_size": size}
            if not self._job.boxes:
                record |= counts_at(level, truth, self._job.threshold)
            if self._job.keep_predictions:
                record |= encode_mask(mask)
            records.append(record)
        for masks in predictions[1:]:
            for record, mask, truth in zip(records, masks, truths, strict=True):
                record["untrained_iou"] = pair_iou(mask, truth)
        if self._job.yardsticks:
            self._add_yardsticks(records, image, predictions[0], truths)
        return records

    def _add_yardsticks(
        self, records: list[dict[str, Any]], image: _Image, predictions: Masks, truths: Masks
    ) -> None:
        tasks, categories = [s.task for s in image.samples], [s.category_id for s in image.samples]
        height, width = image.pixels.shape[:2]
        foreground = all_foreground(height, width, self.image_size)
        regions = category_masks([s.category_id for s in image.shown], self._truths(image.shown))
        swapped = swapped_ious(predictions, truths, swap_partners(tasks, categories, truths))
        for record, category, truth, other in zip(records, categories, truths, swapped, strict=True):
            record["all_foreground_iou"] = pair_iou(foreground, truth)
            record["swapped_iou"] = other
            record["filled_box_iou"] = pair_iou(filled_box(truth), truth)
            record["category_iou"] = pair_iou(regions[category], truth) if category > 0 else None

    def _truths(self, samples: Sequence[Sample]) -> Masks:
        """The truths where masks are compared, bool ``[K, H, W]``."""
        if self._job.compare == "original":
            return np.stack([s.mask for s in samples if s.mask is not None]) > 0
        return np.stack([letterbox_mask(s.mask, self.image_size) for s in samples if s.mask is not None]) > 0


def _question(sample: Sample) -> Sample:
    """The sample as the model may see it: no truth, no answer."""
    return dataclasses.replace(sample, mask=None, answer="")


def _forward_parts(pieces: Sequence[ImageGroup], most: int) -> Iterator[list[ImageGroup]]:
    """Consecutive pieces with at most ``most`` instructions together."""
    part: list[ImageGroup] = []
    count = 0
    for piece in pieces:
        if part and count + len(piece.samples) > most:
            yield part
            part, count = [], 0
        part.append(piece)
        count += len(piece.samples)
    if part:
        yield part
