"""Records that cannot be used: counted by reason, named in a report, and too many of them stop the run."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from unigeoseg.errors import UserError
from unigeoseg.samples.collate import TOO_LONG

#: Below this many samples seen, the allowed share is taken of this number: one early record is no disaster.
_AT_LEAST = 1000
_LISTED = 20


@dataclass(frozen=True)
class BadSampleEvent:
    """A bad sample met at a plan position, and the sample that took its place.

    Attributes:
        sample_id: the bad one.
        reason: countable.
        detail: in words.
        position: plan position.
        replaced_by: id of the stand-in.
    """

    sample_id: str
    reason: str
    detail: str
    position: int
    replaced_by: str


def count_reasons(events: Iterable[BadSampleEvent]) -> dict[str, int]:
    """Number of different bad samples, by reason."""
    return dict(sorted(Counter({e.sample_id: e.reason for e in events}.values()).items()))


def what_to_do(reasons: Collection[str], store: str = "the store") -> str:
    """Who is to blame for samples that cannot be used, and the way out: the settings, or the store."""
    fit = (
        "their text and the image tokens are longer than tokenizer.max_length: raise it (and "
        "model.language.max_positions), or lower model.image_size"
    )
    mend = f"repair or rebuild {store} (`unigeoseg data lint` finds all that is damaged)"
    if set(reasons) == {TOO_LONG}:
        return f"The settings do not fit the store, which may be whole: {fit}"
    if TOO_LONG in reasons:
        return f"Of those that are too long, {fit}; for the others, {mend}"
    return f"R{mend[1:]}"


class Quarantine:
    """The bad samples of a run, of all its workers, judged step by step.

    The verdict depends on the plan's order alone: not on how many workers share the steps, nor on restarts.

    Args:
        samples: number of samples in the split.
        max_share: share of bad samples that stops the run.
        report: where all of them are listed, for the message.
    """

    def __init__(self, samples: int, max_share: float, report: str = "") -> None:
        self._samples, self._max_share, self._report = samples, max_share, report
        self._found: dict[str, BadSampleEvent] = {}

    @property
    def reasons(self) -> dict[str, int]:
        """Number of different bad samples, by reason."""
        return count_reasons(self._found.values())

    def remember(self, events: Iterable[BadSampleEvent]) -> list[BadSampleEvent]:
        """Takes note of bad samples without judging; returns those not met before, in order."""
        new = []
        for event in events:
            if event.sample_id not in self._found:
                self._found[event.sample_id] = event
                new.append(event)
        return new

    def judge(self, seen: int) -> None:
        """After each step with bad samples; the allowed number grows with the samples delivered so far.

        Args:
            seen: samples delivered to all workers, this step included.

        Raises:
            UserError: there are more than the allowed share; lists them.
        """
        base = min(self._samples, max(seen, _AT_LEAST))
        allowed = max(1, int(self._max_share * base)) if self._max_share else 0
        if len(self._found) > allowed:
            raise UserError(self._message(allowed, base))

    def _message(self, allowed: int, base: int) -> str:
        lines = [f"  {e.sample_id}: {e.reason} ({e.detail})" for e in list(self._found.values())[:_LISTED]]
        if len(self._found) > _LISTED:
            lines.append(f"  … and {len(self._found) - _LISTED} more")
        where = f"; all are listed in {self._report}" if self._report else ""
        advice = what_to_do({event.reason for event in self._found.values()})
        return (
            f"{len(self._found)} unusable samples, more than the {allowed} that data.max_bad_share="
            f"{self._max_share} allows of {base}{where}. {advice}, or raise data.max_bad_share:\n"
            + "\n".join(lines)
        )
