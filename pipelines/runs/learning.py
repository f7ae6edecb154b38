"""Whether a run learns: what its rows say in plain words, each with what to do about it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Share of a task's masks from which on they count as all alike (empty, or of the whole picture).
ALIKE = 0.95
#: Steps for which they may be alike before it is said, and the least share of the run's steps.
ALIKE_STEPS, ALIKE_SHARE = 100, 0.02
#: gIoU on training samples beyond that on held-out ones by which a model has learnt by heart; and the share
#: of the first below which the second must be.
GAP, GAP_SHARE = 0.15, 0.6
#: gIoU on training samples below which, after this share of the run, nothing is learnt.
NOTHING, NOTHING_AFTER = 0.05, 0.5
#: Share of a finished run's predictions from which on it is told that they are empty.
EMPTY_RESULT = 0.5

_PAGE = "docs/is_it_learning.md says more"
_ALIKE = {
    "empty": "{share:.0%} of the {task} masks have been empty for {steps} steps: the loss may be at rest "
    "where no mask forms. Take the losses everywhere (model.loss.sampling=dense), weigh cross-entropy less "
    "(model.loss.bce=2), or start from a model that segments (init.model); " + _PAGE,
    "full": "{share:.0%} of the {task} masks have been the whole picture for {steps} steps: weigh "
    "cross-entropy more (model.loss.bce), lower train.lr, or look at the store for masks that cover "
    "everything (`unigeoseg data lint`); " + _PAGE,
}
_GAP = (
    "training {train:.2f}, held-out {val:.2f} (gIoU of {task} at step {step}): the model learns its samples "
    "by heart. More scenes, a smaller model, or fewer steps (train.steps) help; " + _PAGE
)
_NOTHING = (
    "gIoU of {task} is {train:.2f} on training samples after {done:.0%} of the steps: not even these are "
    "learnt. Look at the empty share and the loss by task, try model.loss.sampling=dense or another "
    "train.lr, and see whether the masks fit the pictures (`unigeoseg data preview`); " + _PAGE
)
_RESULT = (
    "{share:.0%} of the {n} {task} predictions are empty: the model says 'nothing' instead of a mask. "
    "evaluation.json says whether another threshold would help; " + _PAGE
)


@dataclass
class Learning:
    """Looks at metrics rows as they come."""

    _since: dict[tuple[str, str], int] = field(default_factory=dict)

    def row(self, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What a logged step gives reason to say: a kind (each is worth saying once) and the text."""
        for what in _ALIKE:
            for task, share in row.get(what, {}).items():
                yield from self._alike(row, what, task, share)
        for task, found in row.get("train_eval", {}).items():
            yield from _measured(row, task, found["gIoU"])

    def _alike(
        self, row: Mapping[str, Any], what: str, task: str, share: float | None
    ) -> Iterator[tuple[str, str]]:
        step = row["step"]
        if share is None:  # no sample of the task since the row before
            return
        if share < ALIKE or self._since.get((what, task), step) > step:
            self._since.pop((what, task), None)
            return
        steps = step - self._since.setdefault((what, task), step)
        total = (step + 1) / max(row["progress"], 1e-9)
        if steps >= max(ALIKE_STEPS, ALIKE_SHARE * total):
            yield f"{what} {task}", _ALIKE[what].format(share=share, task=task, steps=steps)


def _measured(row: Mapping[str, Any], task: str, train: float) -> Iterator[tuple[str, str]]:
    if train < NOTHING and row["progress"] >= NOTHING_AFTER:
        yield f"nothing {task}", _NOTHING.format(task=task, train=train, done=row["progress"])
    val = row.get("val", {}).get(task, {}).get("gIoU")
    if val is not None and train - val >= GAP and val < GAP_SHARE * train:
        yield f"gap {task}", _GAP.format(task=task, train=train, val=val, step=row["step"])


def result_warnings(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is to be said of a finished run's results, from the ``tasks`` of its summary."""
    return [
        _RESULT.format(share=found["empty"], n=found.get("targets", found["n"]), task=task)
        for task, found in tasks.items()
        if found.get("empty", 0.0) >= EMPTY_RESULT
    ]
