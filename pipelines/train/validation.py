"""Evaluation on the way: a fixed subset of held-out samples, every so many steps, spread over the ranks.

It draws nothing at random and reads nothing of the training stream, so a run with it is the run without it.
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
        self._job = Job(store, self._settings.split, ModelSource(""), threads=torch.get_num_threads())
        self._parts: list[Any] | None = None
        self._told = False
        self._seed = config.seed

    def due(self, done: int) -> bool:
        """Whether ``done`` finished steps call for it; the last step is left to the evaluation at the end."""
        every = self._settings.every
        return every is not None and done % every == 0 and done < self._steps

    def run(self) -> Measures:
        """gIoU, cIoU and number of samples by task; the same on every rank. A collective call."""
        model: Any = self._engine.model
        training = model.training
        counts: list[tuple[str, int, int]] = []
        bad: list[tuple[str, str]] = []
        with torch.no_grad():
            worker = Worker(self._job, (model, self._tokenizer))
            for rows in self._own_parts():
                portion = worker.evaluate(rows)
                columns = (portion.table[name].to_pylist() for name in ("task", "intersection", "union"))
                counts += zip(*columns, strict=True)
                bad += portion.bad
        model.train(training)
        parts = self._engine.gather((counts, bad))
        self._tell_of([one for _, found in parts for one in found])
        return measures([row for rows, _ in parts for row in rows])

    def _tell_of(self, bad: Sequence[tuple[str, str]]) -> None:
        """Says once which samples of all ranks are left out."""
        if bad and not self._told and self._engine.rank == 0:
            self._told = True
            log.warning(
                "%d samples of split %r cannot be used and are left out of the evaluation: %s",
                len(bad),
                self._settings.split,
                ", ".join(f"{name} ({reason})" for name, reason in sorted(bad)[:_LISTED]),
            )

    def _own_parts(self) -> list[Any]:
        if self._parts is None:
            index = StoreIndex.open(self._job.store, self._job.split)
            rows = choose_rows(index, self._settings.every_samples, self._seed)
            parts = list(portions(rows, index.images, self._settings.batch))
            self._parts = parts[self._engine.rank :: self._engine.world]
        return self._parts


def measures(counts: Sequence[tuple[str, int, int]]) -> Measures:
    """gIoU, cIoU and n of each task from (task, intersection, union) of its samples."""
    found: Measures = {}
    for task in TASKS:
        own = np.array([(i, u) for name, i, u in counts if name == task], np.int64).reshape(-1, 2)
        if len(own):
            result = MetricSums().add_all(own[:, 0], own[:, 1]).result()
            found[task] = {"n": int(result["n"]), "gIoU": result["gIoU"], "cIoU": result["cIoU"]}
    return found
