"""Collective and absent samples of a tile: all regions of a category, and a category that is not there.

They are numbered behind the others of their task, so that these keep their ids. Each kind and task draws its
own, so that no setting changes other samples. The embedded writer words them, also beside an endpoint.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.build.encode import encode_mask
from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.kinds import Told, all_of, all_that, none_of, none_that
from pipelines.build.labelled import Labelled
from pipelines.build.seeds import generator
from pipelines.config.building import BuildConfig
from pipelines.labels.stages import StageCounts
from pipelines.labels.taxonomy import taxonomy
from unigeoseg.samples.view import OTHER_TURNS
from unigeoseg.tasks import ABSENT, COLLECTIVE, REASONING, REFERRING


def wanted(config: BuildConfig) -> bool:
    """Whether a build makes such samples at all."""
    return config.instruct.collective > 0 or config.instruct.absent > 0


class Kinds:
    """Makes the collective and the absent samples of a tile.

    Args:
        name: of the tile, for ids and draws.
        labelled: its labels.
        facts: its regions.
        config: of the build.

    Attributes:
        present: the categories that are labelled in it.
    """

    def __init__(self, name: str, labelled: Labelled, facts: TileFacts, config: BuildConfig) -> None:
        self._name, self._labelled, self._facts, self._config = name, labelled, facts, config
        self.present = labelled.present

    def samples(self, others: Iterable[dict[str, Any]], counts: StageCounts) -> list[dict[str, Any]]:
        """The samples as they stand in the store's JSON.

        Args:
            others: the samples of the tile that are neither; they decide how many these are.
            counts: of all stages.
        """
        numbers = Counter(str(sample["task"]) for sample in others)
        found = []
        for task in (REFERRING, REASONING):
            if (
                task == REASONING
                and not len(self._facts.regions)
                and self._config.instruct.diversity_quantile
            ):
                continue  # questions are for tiles of many categories
            made = numbers[task]
            for kind, share in (
                (COLLECTIVE, self._config.instruct.collective),
                (ABSENT, self._config.instruct.absent),
            ):
                rng = generator(self._config.seed, kind, task, self._name)
                asked = _number(share * max(numbers[task], 1), rng)
                if not asked:
                    continue
                of_kind = self._collective if kind == COLLECTIVE else self._absent
                few = of_kind(task, asked, rng)
                counts.add(
                    task, asked, len(few), {f"{kind}_without_category": asked - len(few)}, {kind: len(few)}
                )
                for category, mask, told in few:
                    found.append(self._sample(task, kind, made, category, mask, told))
                    made += 1
        return found

    def _collective(
        self, task: str, most: int, rng: np.random.Generator
    ) -> list[tuple[int, NDArray[np.uint8], Told]]:
        """Categories all of whose pixels together are of a size that a region may have."""
        rules = self._config.rules
        found: list[tuple[int, NDArray[np.uint8], Told]] = []
        for category in _shuffled(self._labelled.whole(), rng):
            if len(found) == most:
                break
            mask = self._labelled.pixels(category)
            if not rules.min_area <= np.count_nonzero(mask) / mask.size <= rules.max_area:
                continue
            told = all_of(category, rng) if task == REFERRING else all_that(category, rng)
            if told is not None:
                found.append((category, mask.astype(np.uint8), told))
        return found

    def _absent(
        self, task: str, most: int, rng: np.random.Generator
    ) -> list[tuple[int, NDArray[np.uint8], Told]]:
        """Categories that are surely not there."""
        nothing = np.zeros((self._facts.height, self._facts.width), np.uint8)
        found: list[tuple[int, NDArray[np.uint8], Told]] = []
        for category in _shuffled(self._labelled.absent(self._config.instruct.absent_unlabelled), rng):
            if len(found) == most:
                break
            told = none_of(category, self._facts, rng) if task == REFERRING else none_that(category, rng)
            if told is not None:
                found.append((category, nothing, told))
        return found

    def _sample(
        self, task: str, kind: str, number: int, category: int, mask: NDArray[np.uint8], told: Told
    ) -> dict[str, Any]:
        text = {"instruction": told.instruction, "answer": told.answer}
        sample: dict[str, Any] = {
            "sample_id": f"{self._name}/{task}/{number}",
            "task": task,
            "category_id": category,
            "category": taxonomy()[category].name,
            "mask": encode_mask(mask),
            "quality": None,
            "subtask": kind,
            "box": None,
            "points": None,
        }
        if self._config.instruct.views:
            # All of a kind are the same ones from any side; what is not there is not there from any side.
            sample["views"] = [dict(text) for _ in OTHER_TURNS]
        return sample | text


def with_kinds(
    kinds: Kinds | None, plain: Callable[[], list[dict[str, Any]]], counts: StageCounts
) -> Callable[[], list[dict[str, Any]]]:
    """The samples of a tile with those of ``kinds`` behind them; without it as they are."""
    if kinds is None:
        return plain

    def finish() -> list[dict[str, Any]]:
        made = plain()
        return made + kinds.samples(made, counts)

    return finish


def _number(expected: float, rng: np.random.Generator) -> int:
    """A whole number that is ``expected`` in the mean."""
    return int(expected) + int(rng.random() < expected % 1)


def _shuffled(categories: list[int], rng: np.random.Generator) -> list[int]:
    return [int(category) for category in rng.permutation(np.asarray(categories, np.int64))]
