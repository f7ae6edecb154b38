"""Whether what is asked for is in the picture at all: scores of a prediction, and the limit that tells best.

The model has no output of its own for it: one query makes one mask, without a class or an objectness
(:mod:`unigeoseg.modules.mask_decoder`). What there is are the probabilities of the mask's pixels, of which
four scores are taken. Which tells absent from present ones best, and below which value there is "none", is
fitted on held-out samples and kept beside the weights as ``none.json``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pipelines.storage.filesystem import open_filesystem, storage_errors
from unigeoseg.errors import UserError
from unigeoseg.metrics import logit
from unigeoseg.samples.letterbox import Letterbox

#: The file beside an export's weights.
RULE = "none.json"
#: The first of equals is taken. ``mean``: of the probability in the mask; ``peak``: its maximum; ``top``: its
#: mean in the surest 1/256 of the picture; ``soft``: its mean over all pixels, weighted by itself.
SCORES: Final = ("mean", "peak", "top", "soft")
#: Share of the present targets that a fitted limit may turn into "none".
MOST_MISSES: Final = 0.1
#: Part of the picture that ``top`` looks at.
_FEW = 256

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class NoneRule:
    """When there is none of what is asked for.

    Attributes:
        score: name of :data:`SCORES`.
        threshold: below it there is none.
        false_alarms: share of absent targets that pass, as fitted.
        misses: share of present ones that do not.
        absent: how many absent targets it was fitted on.
        present: how many present ones.
        data: the store or benchmark.
        split: of it.
    """

    score: str
    threshold: float
    false_alarms: float = 0.0
    misses: float = 0.0
    absent: int = 0
    present: int = 0
    data: str = ""
    split: str = ""

    def none(self, scores: Scores) -> NDArray[np.bool_]:
        """Whether there is none, of :func:`presence_scores` ``[..., 4]``."""
        return np.asarray(scores[..., SCORES.index(self.score)] < self.threshold)


def presence_scores(logits: NDArray[np.float32], threshold: float = 0.5) -> Scores:
    """The :data:`SCORES` of a mask, float64 ``[4]`` in [0, 1]; all 0 where the mask is empty.

    Args:
        logits: ``[H, W]``, of the picture's part of the letterboxed square alone.
        threshold: probability above which a pixel is of the mask.
    """
    flat = logits.ravel().astype(np.float64)
    mask = logits.ravel() > np.float32(logit(threshold))
    if not mask.any():
        return np.zeros(len(SCORES))
    probability = expit(flat)
    few = max(1, len(flat) // _FEW)
    surest = np.partition(probability, len(flat) - few)[len(flat) - few :]
    soft = float((probability * probability).sum() / probability.sum())
    return np.array([probability[mask].mean(), probability.max(), surest.mean(), soft])


def picture_scores(square: NDArray[np.float32], height: int, width: int, threshold: float = 0.5) -> Scores:
    """:func:`presence_scores` of a picture's part of its letterboxed square: padding shows nothing of it.

    Args:
        square: logits ``[S, S]``.
        height: of the picture in pixels.
        width: likewise.
        threshold: probability above which a pixel is of the mask.
    """
    fit = Letterbox.fit(height, width, square.shape[0])
    return presence_scores(square[fit.rows, fit.columns], threshold)


def auc(scores: Scores, absent: NDArray[np.bool_]) -> float:
    """How often a present target scores higher than an absent one; ties count half (Mann and Whitney)."""
    from scipy.stats import rankdata  # slow to import, and every worker imports this file

    present = int((~absent).sum())
    ranks = rankdata(scores)[~absent].sum()
    return float((ranks - present * (present + 1) / 2) / (present * int(absent.sum())))


def fit_rule(scores: Scores, absent: NDArray[np.bool_]) -> NoneRule | None:
    """The score of the largest AUC, and the limit of the smallest sum of false alarms and misses.

    A model that hardly tells them apart must not say "none" to nearly everything, so the limit costs no more
    than :data:`MOST_MISSES` of the present targets.

    Args:
        scores: ``[N, 4]``, as :func:`presence_scores`.
        absent: bool ``[N]``.

    Returns:
        ``None`` where there are not both absent and present targets.
    """
    if absent.all() or not absent.any():
        return None
    place = int(np.argmax([auc(column, absent) for column in scores.T]))
    values = np.unique(scores[:, place])
    values = values[values > 0]  # an empty mask, which has 0, says "none" by itself
    # Between two values that occur, so that neither lies on the limit; first below, last above all of them.
    least, most = (values[0] / 2, np.nextafter(values[-1], 2.0)) if len(values) else (0.5, 0.5)
    limits = np.concatenate([[least], (values[:-1] + values[1:]) / 2, [most]])
    passed, missed = (
        np.searchsorted(np.sort(scores[part, place]), limits, side="left") for part in (absent, ~absent)
    )
    alarms, misses = 1 - passed / absent.sum(), missed / (~absent).sum()
    bearable = misses - misses[0] <= MOST_MISSES  # beyond those whose mask is empty anyway
    best = int(np.argmin(np.where(bearable, alarms + misses, np.inf)))  # the lowest among equals
    return NoneRule(
        SCORES[place],
        float(limits[best]),
        float(alarms[best]),
        float(misses[best]),
        int(absent.sum()),
        int((~absent).sum()),
    )


def crossed(scores: Scores, absent: NDArray[np.bool_], scenes: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """What rules say of each sample that were fitted on other scenes: bool ``[N]``, true for "none".

    Scenes are dealt to two halves; each half is judged by the rule of the other. ``None`` where one of the
    halves lacks absent or present targets.
    """
    _, number = np.unique(scenes, return_inverse=True)
    said = np.zeros(len(absent), bool)
    for half in (0, 1):
        here = number % 2 == half
        rule = fit_rule(scores[~here], absent[~here]) if (~here).any() and here.any() else None
        if rule is None:
            return None
        said[here] = rule.none(scores[here])
    return said


def write_rule(export: str, rule: NoneRule) -> str:
    """Writes ``none.json`` into an export; gives its path.

    Raises:
        UserError: the folder cannot be written.
    """
    filesystem, inside = open_filesystem(export)
    text = json.dumps(asdict(rule), indent=2) + "\n"
    try:
        with filesystem.open(f"{inside}/{RULE}", "w") as file:
            file.write(text)
    except storage_errors() as error:
        raise UserError(
            f"cannot write {export}/{RULE}: {error}; give a --model folder that may be written"
        ) from error
    return f"{export.rstrip('/')}/{RULE}"


def read_rule(export: str) -> NoneRule | None:
    """The rule of an export; ``None`` where it has none.

    Raises:
        UserError: the file is damaged, or names a score that this version does not know.
    """
    filesystem, inside = open_filesystem(export)
    try:
        text = filesystem.cat_file(f"{inside}/{RULE}")
    except FileNotFoundError:
        return None
    where = f"{export.rstrip('/')}/{RULE}"
    try:
        rule = NoneRule(**json.loads(text))
        known = rule.score in SCORES and 0 <= float(rule.threshold) < 2
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{where} is damaged ({error}); fit it anew with `unigeoseg evaluate --fit-none`, or remove it"
        ) from error
    if not known:
        raise UserError(
            f"{where} has score {rule.score!r} with threshold {rule.threshold!r}: known are "
            f"{', '.join(SCORES)} with thresholds in [0, 1]; fit it anew with `unigeoseg evaluate --fit-none`"
        )
    return rule


def in_words(found: Mapping[str, Any]) -> str:
    """What an evaluation has to say of absent targets, for a report; empty where there are none."""
    if not found:
        return ""
    said = [f"{found['misses']:.1%} of {found['present']} present targets got no mask"]
    if found["absent"]:
        said.insert(0, f"{found['false_alarms']:.1%} of {found['absent']} absent targets got a mask")
    rule = found.get("rule")
    if rule:
        alarms = f"{rule['false_alarms']:.1%} and " if found["absent"] else ""
        reached = ", ".join(f"{task} {value:.3f}" for task, value in rule["gIoU"].items())
        said.append(f'with "none" where {rule["says"]}: {alarms}{rule["misses"]:.1%}, gIoU {reached}')
    return f"Absent targets: {'; '.join(said)}."


def share(values: NDArray[np.bool_] | Sequence[bool]) -> float:
    """The share of true ones, 0 without any value."""
    return float(np.mean(values)) if len(values) else 0.0
