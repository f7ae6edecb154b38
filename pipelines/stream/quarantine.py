"""Records that cannot be used: counted by reason, named in a report, and too many of them stop the run."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from unigeoseg.errors import UserError

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


class Quarantine:
    """The bad samples of one worker.

    Args:
        samples: number of samples in the split.
        max_share: share of bad samples that stops the run.
        report: a JSON-lines file that gets a line for each bad sample, or ``None``.
    """

    def __init__(self, samples: int, max_share: float, report: Path | None = None) -> None:
        self._samples, self._max_share, self._report = samples, max_share, report
        self._found: dict[str, BadSampleEvent] = {}
        self._seen = 0

    @property
    def reasons(self) -> dict[str, int]:
        """Number of different bad samples, by reason."""
        return dict(sorted(Counter(e.reason for e in self._found.values()).items()))

    def saw(self, samples: int) -> None:
        """Counts delivered samples; the allowed number of bad ones grows with them."""
        self._seen += samples

    def add(self, events: list[BadSampleEvent]) -> None:
        """Takes note of bad samples.

        Raises:
            UserError: there are more than the allowed share; lists them.
        """
        new = [e for e in {e.sample_id: e for e in events}.values() if e.sample_id not in self._found]
        self._found.update((e.sample_id, e) for e in new)
        if new and self._report is not None:
            self._report.parent.mkdir(parents=True, exist_ok=True)
            with self._report.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(e), ensure_ascii=True) + "\n" for e in new)
        base = min(self._samples, max(self._seen, _AT_LEAST))
        allowed = max(1, int(self._max_share * base)) if self._max_share else 0
        if len(self._found) > allowed:
            raise UserError(self._message(allowed, base))

    def _message(self, allowed: int, base: int) -> str:
        lines = [f"  {e.sample_id}: {e.reason} ({e.detail})" for e in list(self._found.values())[:_LISTED]]
        if len(self._found) > _LISTED:
            lines.append(f"  … and {len(self._found) - _LISTED} more")
        where = f"; all are listed in {self._report}" if self._report else ""
        return (
            f"{len(self._found)} unusable samples, more than the {allowed} that data.max_bad_share="
            f"{self._max_share} allows of {base}{where}. Repair or rebuild the store (`unigeoseg data lint` "
            "finds all), or raise data.max_bad_share:\n" + "\n".join(lines)
        )
