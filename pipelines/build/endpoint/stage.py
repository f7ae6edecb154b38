"""The endpoint in the pipeline: judge the drawn regions of a tile, write instructions, score samples."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel

from pipelines.build.describe import Drawn, Made
from pipelines.build.endpoint import prompts
from pipelines.build.endpoint.answers import AnswerCache
from pipelines.build.endpoint.client import Endpoint, NoAnswer
from pipelines.build.endpoint.render import COLOURS, data_url, outlined
from pipelines.build.endpoint.schemas import Cues, Phrase, QuestionAndReason, RegionVerdict, SampleVerdict
from pipelines.build.instruct.candidates import CandidateWriter
from pipelines.build.instruct.referring import phrase
from pipelines.build.instruct.roles import names_category
from pipelines.build.seeds import generator
from pipelines.config.building import BuildConfig
from pipelines.config.endpoint import EndpointConfig
from pipelines.labels.stages import StageCounts
from pipelines.labels.taxonomy import taxonomy
from unigeoseg.samples.tokens import RESERVED
from unigeoseg.tasks import REASONING, REFERRING

#: Most regions of a category that a context question may choose among.
_MOST = len(COLOURS)
_Schema = TypeVar("_Schema", bound=BaseModel)


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
    return _endpoint(config.endpoint.model_dump_json(), place, max(config.workers or 1, 1))


@contextmanager
def open_endpoint(config: BuildConfig, store: str, cutoff: float) -> Iterator["EndpointWriter"]:
    """What describes the tiles of one block; an error or an interruption gives up what was not asked yet.

    Raises:
        UserError: no key.
    """
    endpoint, stop = endpoint_of(config, store), threading.Event()
    threads = max(1, config.endpoint.concurrency // max(config.workers or 1, 1))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="endpoint")
    try:
        yield EndpointWriter(endpoint, config, cutoff, pool, stop)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


class EndpointWriter:
    """Judges, writes and scores the drawn regions of tiles, several of them at a time.

    Args:
        endpoint: answers.
        config: models and thresholds.
        cutoff: fewest categories of a tile that is reasoned about.
        pool: runs regions.
        stop: once set, nothing more is asked.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        config: BuildConfig,
        cutoff: float,
        pool: ThreadPoolExecutor,
        stop: threading.Event,
    ) -> None:
        self._endpoint, self._config, self._cutoff = endpoint, config.endpoint, cutoff
        self._pool, self._stop = pool, stop
        self.ahead = max(1, config.endpoint.concurrency // max(config.workers or 1, 1))

    def begin(self, tile: Drawn) -> Callable[[StageCounts], Made]:
        """Samples of the drawn regions, referring ones first, numbered by task.

        Raises:
            UserError: from the call that waits: the endpoint cannot be used.
        """
        plain = len(np.unique(tile.facts.categories)) < self._cutoff
        under_way = [self._pool.submit(_Region(self, tile, place, plain).written) for place in tile.places]

        def wait(counts: StageCounts) -> Made:
            written = [future.result() for future in under_way]
            made: Made = []
            numbers: Counter[str] = Counter()
            for task in (REFERRING, REASONING):
                for place, one in zip(tile.places, written, strict=True):
                    if task in one.fields:
                        fields = one.fields[task] | {"box": None, "points": None}
                        made.append((task, numbers[task], place, fields))
                        numbers[task] += 1
            for one in written:
                for stage, left, dropped in one.counts:
                    counts.add(stage, 1, left, dropped)
            return made

        return wait

    @property
    def judges(self) -> bool:
        """Whether regions and samples are judged."""
        return bool(self._config.judges)

    def ask(self, text: str, image: str, schema: type[_Schema]) -> _Schema:
        """The writing model's answer; see :meth:`Endpoint.ask`.

        Raises:
            CancelledError: the build has been given up.
        """
        return self._ask(str(self._config.model), text, image, schema)

    def judged(
        self, text: str, image: str, schema: type[RegionVerdict] | type[SampleVerdict]
    ) -> tuple[dict[str, Any], str]:
        """Scores by judge, and the first dimension below its threshold (empty: passed by all)."""
        scores: dict[str, Any] = {}
        for judge in self._config.judges:
            try:
                verdict = self._ask(judge, text, image, schema).model_dump()
            except NoAnswer as error:
                return scores, f"judge_{error.reason}"
            scores[judge] = verdict
            low = [name for name, score in verdict.items() if score < self._config.thresholds[name]]
            if low:
                return scores, f"low_{low[0]}"
        return scores, ""

    def _ask(self, model: str, text: str, image: str, schema: type[_Schema]) -> _Schema:
        if self._stop.is_set():
            raise CancelledError
        return self._endpoint.ask(model, text, image, schema)


class _Region:
    """One drawn region of a tile."""

    def __init__(self, writer: EndpointWriter, tile: Drawn, place: int, plain: bool) -> None:
        self._writer, self._tile, self._facts = writer, tile, tile.facts
        self._place, self._plain = place, plain
        self._category = int(tile.facts.categories[place])
        self._noun = tile.facts.noun(self._category)

    def written(self) -> _Written:
        """Judges the region, then writes and scores a sample of each task."""
        written = _Written()
        image = self._picture([self._place])
        quality: dict[str, Any] = {}
        if self._writer.judges:
            text = prompts.JUDGE_REGION.format(noun=self._noun)
            scores, reason = self._writer.judged(text, image, RegionVerdict)
            written.count("judge", reason)
            if reason:
                return written
            quality = {"region": scores}
        for task, write in ((REFERRING, self._refer), (REASONING, self._reason)):
            try:
                fields = write(image)
            except NoAnswer as error:
                fields = error.reason
            written.count(task, fields if isinstance(fields, str) else "")
            if isinstance(fields, str):
                continue
            if self._writer.judges:
                scores, reason = self._writer.judged(_scoring(fields), image, SampleVerdict)
                written.count("score", reason)
                if reason:
                    continue
                fields["quality"] = quality | {"sample": scores}
            written.fields[task] = fields
        return written

    def _picture(self, places: list[int]) -> str:
        return data_url(outlined(self._tile.pixels, [self._facts.regions[i] for i in places]))

    def _refer(self, image: str) -> dict[str, Any] | str:
        rng = generator(self._tile.seed, "hint", self._tile.name, self._place)
        meaning = CandidateWriter(self._facts).choose(self._place, rng)
        hint = phrase(meaning, self._facts, rng) if meaning else "nothing"
        text = prompts.REFER.format(noun=self._noun, hint=hint)
        answer = self._writer.ask(text, image, Phrase)
        return _checked({"subtask": "object", "instruction": answer.phrase, "answer": ""})

    def _reason(self, image: str) -> dict[str, Any] | str:
        if self._plain:
            return "low_diversity"
        members = [int(i) for i in self._facts.members(self._category)]
        if len(members) > _MOST:
            return "too_many_of_category"
        if len(members) == 1:
            subtask, text = "attribute", prompts.ATTRIBUTE.format(noun=self._noun)
        else:
            others = [i for i in members if i != self._place]
            subtask, image = "context", self._picture([self._place, *others])
            named = " and ".join(name for name, _ in COLOURS[1 : len(members)])
            asked = prompts.CUES.format(number=len(members), noun=self._noun, others=named)
            cues = self._writer.ask(asked, image, Cues).cues
            listed = " ".join(f"({n}) {cue}" for n, cue in enumerate(cues, 1))
            text = prompts.CONTEXT.format(number=len(members), noun=self._noun, cues=listed)
        answer = self._writer.ask(text, image, QuestionAndReason)
        if names_category(answer.question, taxonomy()[self._category].name):
            return "names_category"
        return _checked({"subtask": subtask, "instruction": answer.question, "answer": answer.explanation})


def _checked(fields: dict[str, Any]) -> dict[str, Any] | str:
    """The fields, or why training could not use them."""
    text = f"{fields['instruction']} {fields['answer']}"
    return "reserved_token" if any(token in text for token in RESERVED) else fields


def _scoring(fields: dict[str, Any]) -> str:
    explained = prompts.EXPLAINED.format(answer=fields["answer"]) if fields["answer"] else ""
    return prompts.JUDGE_SAMPLE.format(instruction=fields["instruction"], explanation=explained)
