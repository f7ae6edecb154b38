"""The endpoint in the pipeline: judge the drawn regions of a tile, write instructions, score samples."""

import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.build.config import BuildConfig
from pipelines.build.endpoint import prompts
from pipelines.build.endpoint.answers import AnswerCache
from pipelines.build.endpoint.client import Endpoint, NoAnswer
from pipelines.build.endpoint.config import EndpointConfig
from pipelines.build.endpoint.render import COLOURS, data_url, outlined
from pipelines.build.endpoint.schemas import Cues, Phrase, QuestionAndReason, RegionVerdict, SampleVerdict
from pipelines.build.instruct.candidates import CandidateWriter
from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.referring import phrase
from pipelines.build.instruct.roles import names_category
from pipelines.build.seeds import generator
from pipelines.build.stages import StageCounts
from pipelines.build.taxonomy import taxonomy
from unigeoseg.tasks import REASONING, REFERRING

#: Most regions of a category that a context question may choose among.
_MOST = len(COLOURS)
Made = list[tuple[str, int, int, dict[str, Any]]]


@dataclass
class _Written:
    """What the endpoint made of one region: fields by task, and what was counted on the way."""

    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: list[tuple[str, int, dict[str, int]]] = field(default_factory=list)

    def count(self, stage: str, reason: str = "") -> None:
        """One region or sample that passed the stage, or left it for a reason."""
        self.counts.append((stage, int(not reason), {reason: 1} if reason else {}))


@cache
def _endpoint(settings: str, place: str, workers: int) -> Endpoint:
    """One client a process, whatever the number of blocks."""
    return Endpoint(EndpointConfig(**json.loads(settings)), AnswerCache(place), workers)


def endpoint_of(config: BuildConfig, store: str) -> Endpoint:
    """The endpoint that a build into ``store`` uses.

    Raises:
        UserError: no key.
    """
    place = config.endpoint.cache or f"{store.rstrip('/')}-answers"
    return _endpoint(config.endpoint.model_dump_json(), place, max(config.workers, 1))


class EndpointWriter:
    """Judges, writes and scores the regions of one tile.

    Args:
        endpoint: answers.
        config: models and thresholds.
        name: of the tile, for the draws of its hints.
        pixels: uint8 RGB of the tile ``[H, W, 3]``.
        facts: its regions.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        config: BuildConfig,
        name: str,
        pixels: NDArray[np.uint8],
        facts: TileFacts,
    ) -> None:
        self._endpoint, self._config, self._seed = endpoint, config.endpoint, config.seed
        self._name, self._pixels, self._facts = name, pixels, facts

    def write(self, places: list[int], counts: StageCounts) -> Made:
        """Samples of the regions at ``places``, referring ones first, numbered by task.

        Raises:
            UserError: the endpoint cannot be used.
        """
        if not places:
            return []
        with ThreadPoolExecutor(min(len(places), self._config.concurrency)) as pool:
            written = list(pool.map(self._region, places))
        made: Made = []
        numbers: dict[str, int] = defaultdict(int)
        for task in (REFERRING, REASONING):
            for place, one in zip(places, written, strict=True):
                if task in one.fields:
                    plain = {"box": None, "points": None}
                    made.append((task, numbers[task], place, one.fields[task] | plain))
                    numbers[task] += 1
        for one in written:
            for stage, left, dropped in one.counts:
                counts.add(stage, 1, left, dropped)
        return made

    def _region(self, place: int) -> _Written:
        written = _Written()
        image = self._picture([place])
        quality: dict[str, Any] = {}
        noun = self._facts.noun(int(self._facts.categories[place]))
        if self._config.judges:
            text = prompts.JUDGE_REGION.format(noun=noun)
            scores, reason = self._judged(text, image, RegionVerdict)
            written.count("judge", reason)
            if reason:
                return written
            quality = {"region": scores}
        for task in (REFERRING, REASONING):
            write = self._refer if task == REFERRING else self._reason
            try:
                fields = write(place, noun, image)
            except NoAnswer as error:
                fields = error.reason
            written.count(task, fields if isinstance(fields, str) else "")
            if isinstance(fields, str):
                continue
            if self._config.judges:
                text = prompts.JUDGE_SAMPLE.format(instruction=fields["instruction"])
                scores, reason = self._judged(text, image, SampleVerdict)
                written.count("score", reason)
                if reason:
                    continue
                fields["quality"] = quality | {"sample": scores}
            written.fields[task] = fields
        return written

    def _picture(self, places: list[int]) -> str:
        return data_url(outlined(self._pixels, [self._facts.regions[i] for i in places]))

    def _judged(
        self, text: str, image: str, schema: type[RegionVerdict] | type[SampleVerdict]
    ) -> tuple[dict[str, Any], str]:
        """Scores by judge, and the first dimension below its threshold (empty: passed by all)."""
        scores: dict[str, Any] = {}
        for judge in self._config.judges:
            try:
                verdict = self._endpoint.ask(judge, text, image, schema).model_dump()
            except NoAnswer as error:
                return scores, f"judge_{error.reason}"
            scores[judge] = verdict
            low = [name for name, score in verdict.items() if score < self._config.thresholds[name]]
            if low:
                return scores, f"low_{low[0]}"
        return scores, ""

    def _refer(self, place: int, noun: str, image: str) -> dict[str, Any] | str:
        rng = generator(self._seed, "hint", self._name, place)
        meaning = CandidateWriter(self._facts).choose(place, rng)
        hint = phrase(meaning, self._facts, rng) if meaning else "nothing"
        text = prompts.REFER.format(noun=noun, hint=hint)
        answer = self._endpoint.ask(str(self._config.model), text, image, Phrase)
        return {"subtask": "object", "instruction": answer.phrase, "answer": ""}

    def _reason(self, place: int, noun: str, image: str) -> dict[str, Any] | str:
        category = int(self._facts.categories[place])
        members = [int(i) for i in self._facts.members(category)]
        if len(members) > _MOST:
            return "too_many_of_category"
        model = str(self._config.model)
        if len(members) == 1:
            subtask, text = "attribute", prompts.ATTRIBUTE.format(noun=noun)
        else:
            subtask, others = "context", [i for i in members if i != place]
            image = self._picture([place, *others])
            named = " and ".join(name for name, _ in COLOURS[1 : len(members)])
            asked = prompts.CUES.format(number=len(members), noun=noun, others=named)
            cues = self._endpoint.ask(model, asked, image, Cues).cues
            listed = " ".join(f"({n}) {cue}" for n, cue in enumerate(cues, 1))
            text = prompts.CONTEXT.format(number=len(members), noun=noun, cues=listed)
        answer = self._endpoint.ask(model, text, image, QuestionAndReason)
        if names_category(answer.question, taxonomy()[category].name):
            return "names_category"
        return {"subtask": subtask, "instruction": answer.question, "answer": answer.explanation}
