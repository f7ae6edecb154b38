"""Evaluation on the way: fixed subsets of held-out and of training samples, spread over the ranks.

The two together tell what a loss does not: whether the model learns, and whether it only learns by heart. It
draws nothing at random and reads nothing of the training stream, so a run with it is the run without it.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipelines.config import Config
from pipelines.evaluate.models import ModelSource
from pipelines.evaluate.selection import choose_rows, portions
from pipelines.evaluate.worker import Job, Worker
from pipelines.store.index import StoreIndex
from pipelines.train.engine import Engine
from unigeoseg.metrics import MetricSums
from unigeoseg.tasks import TASKS
from unigeoseg.tokens import Tokenizer

log = logging.getLogger(__name__)
_LISTED = 20
Measures = dict[str, dict[str, float]]
#: Under the names of a logged row, ``val`` and ``train_eval``.
Measured = dict[str, Measures]


class Validation:
    """Scores the model in training; all ranks call it at the same steps.

    Args:
        config: of the run; ``evaluation.every`` and ``evaluation.every_samples`` decide.
        store: folder or ``s3://`` prefix.
        engine: whose model is scored.
        tokenizer: of the run.
        steps: of the whole run.
    """

    def __init__(self, config: Config, store: str, engine: Engine, tokenizer: Tokenizer, steps: int) -> None:
        self._settings, self._engine, self._tokenizer, self._steps = (
            config.evaluation,
            engine,
            tokenizer,
            steps,
        )
        threads = torch.get_num_threads()
        self._jobs = {
            name: Job(store, split, ModelSource(""), threads=threads, threshold=self._settings.threshold)
            for name, split in (("val", self._settings.split), ("train_eval", config.data.split))
        }
        self._parts: dict[str, list[Any]] = {}
        self._told = False
        self._seed = config.seed

    def due(self, done: int) -> bool:
        """Whether ``done`` finished steps call for it; the last step always does where any does."""
        every = self._settings.every
        return every is not None and (done % every == 0 or done == self._steps)

    def run(self) -> Measured:
        """gIoU, cIoU and number of samples by subset and task; the same on every rank. A collective call."""
        return {name: self._measure(name, job) for name, job in self._jobs.items()}

    def _measure(self, name: str, job: Job) -> Measures:
        model: Any = self._engine.model
        training = model.training
        counts: list[tuple[str, int, int]] = []
        bad: list[tuple[str, str]] = []
        with torch.no_grad():
            worker = Worker(job, (model, self._tokenizer))
            for rows in self._own_parts(name, job):
                portion = worker.evaluate(rows)
                columns = (portion.table[column].to_pylist() for column in ("task", "intersection", "union"))
                counts += zip(*columns, strict=True)
                bad += portion.bad
        model.train(training)
        parts = self._engine.gather((counts, bad))
        self._tell_of(job.split, [one for _, found in parts for one in found])
        return measures([row for rows, _ in parts for row in rows])

    def _tell_of(self, split: str, bad: Sequence[tuple[str, str]]) -> None:
        """Says once which samples of all ranks are left out."""
        if bad and not self._told and self._engine.rank == 0:
            self._told = True
            log.warning(
                "%d samples of split %r cannot be used and are left out of the evaluation: %s",
                len(bad),
                split,
                ", ".join(f"{name} ({reason})" for name, reason in sorted(bad)[:_LISTED]),
            )

    def _own_parts(self, name: str, job: Job) -> list[Any]:
        if name not in self._parts:
            index = StoreIndex.open(job.store, job.split)
            rows = choose_rows(index, self._settings.every_samples, self._seed)
            parts = list(portions(rows, index.images, self._settings.batch))
            self._parts[name] = parts[self._engine.rank :: self._engine.world]
        return self._parts[name]


def measures(counts: Sequence[tuple[str, int, int]]) -> Measures:
    """gIoU, cIoU and n of each task from (task, intersection, union) of its samples."""
    found: Measures = {}
    for task in TASKS:
        own = np.array([(i, u) for name, i, u in counts if name == task], np.int64).reshape(-1, 2)
        if len(own):
            result = MetricSums().add_all(own[:, 0], own[:, 1]).result()
            found[task] = {"n": int(result["n"]), "gIoU": result["gIoU"], "cIoU": result["cIoU"]}
    return found
