"""What an evaluation says of absent targets: false alarms, misses, and what a rule for "none" would do."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.evaluate.presence import SCORES, NoneRule, Scores, auc, crossed, fit_rule, share
from unigeoseg.tasks import INTERACTIVE, TASKS

Flags = NDArray[np.bool_]


def absent_report(table: pa.Table, scenes: NDArray[np.int64], rule: NoneRule | None = None) -> dict[str, Any]:
    """The content of ``none`` in ``evaluation.json``; empty where nothing is absent and no rule is given.

    Boxes and points mean what is there, so interactive samples are left out.

    Args:
        table: an evaluation's, with ``presence``.
        scenes: the scene of each row.
        rule: of the model; without one it is fitted on half of the scenes and judged on the others, twice.

    Returns:
        ``absent`` and ``present`` (numbers), ``false_alarms`` (share of the absent with a mask), ``misses``
        (share of the present without one), both also by task in ``tasks``; ``auc`` of each score; and in
        ``rule`` the same two shares and the gIoU by task with "none" as the rule says (an empty mask: IoU 1
        for an absent target, 0 for a present one), and in ``says`` where the rule is from.
    """
    task = np.asarray(table["task"].to_pylist())
    rows = np.flatnonzero(task != INTERACTIVE)
    if not len(rows):
        return {}
    part, task, scenes = table.take(pa.array(rows)), task[rows], np.asarray(scenes)[rows]
    absent = part["truth_share"].to_numpy() == 0
    if not absent.any() and rule is None:
        return {}
    silent = part["predicted_share"].to_numpy() == 0
    found = _shares(absent, silent) | {
        "tasks": {name: _shares(absent[here], silent[here]) for name in TASKS if (here := task == name).any()}
    }
    scores = presence(part)
    if absent.any() and not absent.all():
        found["auc"] = {name: auc(column, absent) for name, column in zip(SCORES, scores.T, strict=True)}
    said, says = _said(scores, absent, scenes, rule)
    if said is not None:
        found["rule"] = {"says": says} | _ruled(part, task, absent, silent | said)
    return found


def fitted(table: pa.Table, data: str, split: str) -> NoneRule | None:
    """The rule that an evaluation's referring and reasoning samples give; ``None`` without absent ones."""
    rows = np.flatnonzero(np.asarray(table["task"].to_pylist()) != INTERACTIVE)
    if not len(rows):
        return None
    part = table.take(pa.array(rows))
    rule = fit_rule(presence(part), part["truth_share"].to_numpy() == 0)
    if rule is None:
        return None
    kept = {name: getattr(rule, name) for name in ("false_alarms", "misses", "absent", "present")}
    return NoneRule(rule.score, rule.threshold, data=data, split=split, **kept)


def presence(table: pa.Table) -> Scores:
    """The scores of each row, float64 ``[N, 4]``."""
    return np.asarray(table["presence"].to_pylist(), np.float64).reshape(-1, len(SCORES))


def _said(
    scores: Scores, absent: Flags, scenes: NDArray[np.int64], rule: NoneRule | None
) -> tuple[Flags | None, str]:
    if rule is not None:
        return rule.none(scores), f"the score {rule.score} is below {rule.threshold:.4g} (none.json)"
    return crossed(scores, absent, scenes), "a limit says so that was fitted on the other half of the scenes"


def _shares(absent: Flags, silent: Flags) -> dict[str, Any]:
    return {
        "absent": int(absent.sum()),
        "present": int((~absent).sum()),
        "false_alarms": share(~silent[absent]),
        "misses": share(silent[~absent]),
    }


def _ruled(table: pa.Table, task: NDArray[np.str_], absent: Flags, silent: Flags) -> dict[str, Any]:
    iou = np.where(silent, absent.astype(np.float64), table["iou"].to_numpy())
    shares = _shares(absent, silent)
    return {
        "false_alarms": shares["false_alarms"],
        "misses": shares["misses"],
        "gIoU": {name: float(iou[here].mean()) for name in TASKS if (here := task == name).any()},
    }
