"""Counts of each construction stage: how many went in, came out, and were dropped for which reason."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from unigeoseg.tasks import TASKS

#: Stage and the unit that it counts, in the order of the pipeline.
STAGES: dict[str, str] = {
    "read": "images",
    "tile": "tiles",
    "standardise": "pixels",
    "boxes": "objects",
    "split": "regions",
    "area": "regions",
    "rules": "regions",
    "judge": "regions",
    "interactive": "samples",
    "referring": "samples",
    "reasoning": "samples",
    "score": "samples",
    "diversity": "samples",
    "balance": "samples",
    "write": "samples",
    "files": "files",  # beside the pipeline: what lies in the source's folder, and what of it was used
}


#: Stages that all pictures pass, whatever is drawn on them.
_OF_PICTURES = ("read", "tile", "standardise", "files")
#: How many of what was dropped are named, for each stage and reason.
_NAMED = 5


class StageCounts:
    """Additive counts of all stages, with a few names of what was dropped."""

    def __init__(self) -> None:
        self._in: Counter[str] = Counter()
        self._out: Counter[str] = Counter()
        self._dropped: dict[str, Counter[str]] = defaultdict(Counter)
        self._noted: dict[str, Counter[str]] = defaultdict(Counter)
        self._named: dict[str, dict[str, list[str]]] = defaultdict(dict)

    def add(
        self,
        stage: str,
        entered: int,
        left: int,
        dropped: dict[str, int] | None = None,
        noted: dict[str, int] | None = None,
    ) -> None:
        """Counts one pass through a stage; what is only ``noted`` went on all the same."""
        self._in[stage] += entered
        self._out[stage] += left
        for reason, count in (dropped or {}).items():
            if count:
                self._dropped[stage][reason] += count
        for remark, count in (noted or {}).items():
            if count:
                self._noted[stage][remark] += count

    def name(self, stage: str, reason: str, names: Iterable[str]) -> None:
        """Names things that were dropped; the first few in the order of their names are kept."""
        known = self._named[stage].get(reason, [])
        self._named[stage][reason] = sorted({*known, *names})[:_NAMED]

    def merge(self, rows: list[dict[str, Any]]) -> None:
        """Adds counts that :meth:`rows` gave elsewhere."""
        for row in rows:
            self.add(row["name"], row["in"], row["out"], row["dropped"], row.get("noted"))
            for reason, names in row.get("named", {}).items():
                self.name(row["name"], reason, names)

    def brief(self) -> str:
        """What came out of the stages that one watches, in a line."""
        samples = sum(self._out[task] for task in TASKS)
        tiles, regions, sized = (self._out[name] for name in ("tile", "split", "area"))
        return f"{tiles} tiles, {regions} regions, {sized} of a fit size, {samples} candidate samples"

    def why_nothing(self) -> str:
        """Why nothing came out at the end, in a line."""
        if not any(self._in[name] for name in STAGES if name not in _OF_PICTURES):
            return (
                f"{self.brief()}. No label lies on a picture: look at the table's classes, and at the "
                "coordinate systems where labels have one"
            )
        dropped = {name: dict(self._dropped[name]) for name in STAGES if self._dropped[name]}
        return f"{self.brief()}; dropped by stage: {dropped}"

    def rows(self) -> list[dict[str, Any]]:
        """Plain rows in the order of the pipeline; "noted" and "named" only where something was."""
        return [
            {
                "name": name,
                "unit": unit,
                "in": self._in[name],
                "out": self._out[name],
                "dropped": dict(sorted(self._dropped[name].items())),
            }
            | ({"noted": dict(sorted(self._noted[name].items()))} if self._noted[name] else {})
            | ({"named": dict(sorted(self._named[name].items()))} if self._named[name] else {})
            for name, unit in STAGES.items()
        ]
