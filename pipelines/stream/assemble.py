"""From plan positions to image groups: read, check, and replace what cannot be used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.config import Config
from pipelines.plan.plan import Plan, PlanBatch
from pipelines.store.index import StoreIndex
from pipelines.store.reader import Loaded, ReadStats, StoreReader
from pipelines.stream.augment import Augment
from pipelines.stream.collator import make_collator
from pipelines.stream.layout import Micro
from pipelines.stream.quarantine import BadSampleEvent, what_to_do
from unigeoseg.errors import UserError
from unigeoseg.samples.batch import Batch
from unigeoseg.samples.collate import BadSample
from unigeoseg.samples.prompts import PromptTokens
from unigeoseg.samples.sample import ImageGroup, Sample
from unigeoseg.samples.tokens import load_tokenizer

_ATTEMPTS = 64


@dataclass
class Filled:
    """A micro-batch's content, before it becomes tensors, and what was replaced in it."""

    micro: Micro
    groups: list[ImageGroup]
    prompts: list[PromptTokens]
    events: list[BadSampleEvent]


class _Usable(NamedTuple):
    """A sample that nothing is wrong with, its image and its prompt."""

    image: NDArray[np.uint8]
    sample: Sample
    prompt: PromptTokens


class Assembler:
    """Fills micro-batches. May be used by several threads; made anew in each process.

    Args:
        config: of the run.
        store: folder or ``s3://`` prefix.
        tokenizer_path: its folder; the tokenizer decides whether a text fits.
    """

    def __init__(self, config: Config, store: str, tokenizer_path: str) -> None:
        self.index = StoreIndex.open(store, config.data.split)
        self.plan = Plan.from_config(self.index, config)
        self._reader = StoreReader(self.index)
        tokenizer = load_tokenizer(tokenizer_path, config.model.mode)
        self._collate = make_collator(config, tokenizer)
        augment = config.data.augment
        self._augment = Augment(augment, config.seed) if augment.active else None

    def fill(self, micros: Sequence[Micro], stats: ReadStats) -> Iterator[Filled]:
        """The content of micro-batches, each image read and decoded once for all of them.

        One is decoded when it is asked for: make its tensors before the next, and pixels are read while they
        are still in a core's cache.

        Args:
            micros: in order.
            stats: also counts what reading cost; complete at the end.

        Raises:
            UserError: storage stays out of reach, or no usable stand-in is found.
        """
        parts = [self.plan.positions(m.position, m.position + m.count, m.step) for m in micros]
        loaded = self._reader.each([int(r) for part in parts for r in part.rows], stats)
        for micro, part in zip(micros, parts, strict=True):
            yield self._filled(micro, part, loaded, stats)
        for _ in loaded:  # which counts at its end
            pass

    def _filled(self, micro: Micro, part: PlanBatch, loaded: Iterator[Loaded], stats: ReadStats) -> Filled:
        filled = Filled(micro, [], [], [])
        for position, unit in zip(part.positions, part.units, strict=True):
            good = [
                self._usable(next(loaded), position, slot, filled.events, stats) for slot in range(len(unit))
            ]
            for number, (image, samples) in enumerate(_by_image(good)):
                group = ImageGroup(image, tuple(sample for sample, _ in samples))
                group, prompts = self._seen(group, [p for _, p in samples], position, number)
                filled.groups.append(group)
                filled.prompts += prompts
        return filled

    def batch(self, filled: Filled) -> Batch:
        """The tensors of a micro-batch."""
        micro = filled.micro
        positions = range(micro.position, micro.position + micro.count)
        return self._collate(filled.groups, positions, filled.prompts)

    def _usable(
        self, first: Loaded, position: int, slot: int, events: list[BadSampleEvent], stats: ReadStats
    ) -> _Usable:
        """The sample itself, or the first usable stand-in."""
        met: list[tuple[str, str, str]] = []
        loaded = first
        for attempt in range(_ATTEMPTS):
            found = self._checked(loaded)
            if isinstance(found, _Usable):
                events += [BadSampleEvent(*bad, position, loaded.sample_id) for bad in met]
                return found
            met.append((loaded.sample_id, *found))
            row = self.plan.substitute(position, slot, attempt)
            loaded = self._reader.load([row], stats)[0]
        names = "\n".join(f"  {name}: {reason} ({detail})" for name, reason, detail in met[:20])
        advice = what_to_do({reason for _, reason, _ in met}, self.index.store)
        raise UserError(f"position {position}: {_ATTEMPTS} samples in a row are unusable. {advice}:\n{names}")

    def _seen(
        self, group: ImageGroup, prompts: list[PromptTokens], position: int, number: int
    ) -> tuple[ImageGroup, list[PromptTokens]]:
        """A position's image as training sees it; as it is where its text would no longer fit."""
        if self._augment is None:
            return group, prompts
        other = self._augment(group, position, number)
        try:
            return other, [self._collate.check(sample, other.image) for sample in other.samples]
        except BadSample:
            return group, prompts

    def _checked(self, loaded: Loaded) -> _Usable | tuple[str, str]:
        """The sample with its prompt, or the reason why it cannot be used and its detail."""
        if loaded.sample is None or loaded.image is None:
            return loaded.reason, loaded.detail
        try:
            return _Usable(loaded.image, loaded.sample, self._collate.check(loaded.sample, loaded.image))
        except BadSample as error:
            return error.reason, str(error)


def _by_image(
    unit: Sequence[_Usable],
) -> list[tuple[NDArray[np.uint8], list[tuple[Sample, PromptTokens]]]]:
    """A unit's samples by image, in order of first appearance."""
    images: dict[int, tuple[NDArray[np.uint8], list[tuple[Sample, PromptTokens]]]] = {}
    for one in unit:
        images.setdefault(id(one.image), (one.image, []))[1].append((one.sample, one.prompt))
    return list(images.values())
