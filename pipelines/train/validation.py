"""Evaluation on the way: a fixed subset of held-out samples, every so many steps, spread over the ranks.

It draws nothing at random and reads nothing of the training stream, so a run with it is the run without it.
"""

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
        with torch.no_grad():
            worker = Worker(self._job, (model, self._tokenizer))
            for rows in self._own_parts():
                table = worker.evaluate(rows).table
                columns = (table[name].to_pylist() for name in ("task", "intersection", "union"))
                counts += zip(*columns, strict=True)
        model.train(training)
        return measures([row for part in self._engine.gather(counts) for row in part])

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
