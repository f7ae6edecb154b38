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
from pipelines.evaluate.selection import Rows, choose_rows, portions
from pipelines.evaluate.worker import EvalJob, Worker
from pipelines.store.index import StoreIndex
from pipelines.train.engine.engine import Engine
from unigeoseg.errors import UserError
from unigeoseg.metrics import MetricSums
from unigeoseg.samples.tokens import Tokenizer
from unigeoseg.tasks import TASKS

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
    """

    def __init__(self, config: Config, store: str, engine: Engine, tokenizer: Tokenizer) -> None:
        self._config, self._engine, self._tokenizer = config, engine, tokenizer
        settings, threads = config.evaluation, torch.get_num_threads()
        self._jobs = {
            name: EvalJob(store, split, ModelSource(""), threads=threads, threshold=config.threshold)
            for name, split in (("val", settings.split), ("train_eval", config.data.split))
        }
        self._rows: dict[str, list[Rows] | None] = {}  # this rank's portions; None: there is no such split
        self._told = False

    def due(self, done: int) -> bool:
        """Whether ``done`` finished steps call for it."""
        return on_the_way(self._config) and done % (self._config.evaluation.every or 1) == 0

    def run(self) -> Measured:
        """gIoU, cIoU and number of samples by subset and task; the same on every rank. A collective call."""
        return {name: self._measure(name, job) for name, job in self._jobs.items() if self._there(name, job)}

    def _there(self, name: str, job: EvalJob) -> bool:
        """Whether the store has the split; a run that is not evaluated at its end may go without."""
        if name not in self._rows:
            try:
                index = StoreIndex.open(job.store, job.split)
            except UserError as error:
                if self._engine.rank == 0:
                    log.warning("no evaluation on the way of split %r: %s", job.split, error)
                self._rows[name] = None
                return False
            rows = choose_rows(index, self._config.evaluation.every_samples, self._config.seed)
            parts = list(portions(rows, index.images, self._config.evaluation.batch))
            self._rows[name] = parts[self._engine.rank :: self._engine.world]
        return self._rows[name] is not None

    def _measure(self, name: str, job: EvalJob) -> Measures:
        model: Any = self._engine.model
        training = model.training
        counts: list[tuple[str, int, int]] = []
        bad: list[tuple[str, str]] = []
        with torch.no_grad():
            worker = Worker(job, (model, self._tokenizer))
            for rows in self._rows[name] or ():
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


def on_the_way(config: Config) -> bool:
    """Whether a run is evaluated on the way: not under ZeRO stage 3, where no rank has whole weights."""
    return config.evaluation.every is not None and config.engine.zero_stage != 3


def measures(counts: Sequence[tuple[str, int, int]]) -> Measures:
    """gIoU, cIoU and n of each task from (task, intersection, union) of its samples."""
    found: Measures = {}
    for task in TASKS:
        own = np.array([(i, u) for name, i, u in counts if name == task], np.int64).reshape(-1, 2)
        if len(own):
            result = MetricSums().add_all(own[:, 0], own[:, 1]).result()
            found[task] = {"n": int(result["n"]), "gIoU": result["gIoU"], "cIoU": result["cIoU"]}
    return found
