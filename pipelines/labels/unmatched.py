"""What lies in a source's folder and matches nothing: counted by reason, some named, stopped past a share."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipelines.labels.stages import StageCounts
from pipelines.pictures.spelling import folded
from unigeoseg.errors import UserError

#: Reasons that speak of data which is missed; others are merely told.
MISSED = (
    "label_without_picture",
    "row_without_picture",
    "path_in_another_case",
    "twin_in_another_case",
)
#: Ends of the names of picture files.
PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2")
_NAMED = 5


@dataclass
class Unmatched:
    """Files, and rows of label files, that no image of the source uses; ``notes`` are of used ones."""

    counts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Counts one; the first few are named."""
        self.counts[reason] += 1
        self._name(reason, name)

    def note(self, remark: str, name: str) -> None:
        """The same of a file that is used all the same."""
        self.notes[remark] += 1
        self._name(remark, name)

    def _name(self, reason: str, name: str) -> None:
        named = self.names.setdefault(reason, [])
        if len(named) < _NAMED:
            named.append(name)

    def add_file(self, path: str) -> None:
        """A file that fits no pattern."""
        self.add("other_picture" if path.lower().endswith(PICTURES) else "other_file", path)

    def add_all(self, other: "Unmatched") -> None:
        """Takes over what another one counted."""
        self.counts.update(other.counts)
        self.notes.update(other.notes)
        for reason, names in other.names.items():
            self.names[reason] = (self.names.get(reason, []) + names)[:_NAMED]

    def told(self, used: int) -> StageCounts:
        """As the stage "files" of a build; ``used`` files belong to images."""
        counts = StageCounts()
        counts.add("files", used + self.counts.total(), used, dict(self.counts), dict(self.notes))
        for reason, names in self.names.items():
            counts.name("files", reason, names)
        return counts

    def check(self, used: int, share: float, root: object) -> None:
        """Stops where more is missed than is borne.

        Raises:
            UserError: says what, names some, and the way out.
        """
        missed = sum(self.counts[reason] for reason in MISSED)
        if missed <= share * (used + missed):
            return
        shown = "; ".join(
            f"{self.counts[r]} {r.replace('_', ' ')}: {', '.join(self.names[r][:3])}"
            for r in MISSED
            if self.counts[r]
        )
        raise UserError(
            f"{root}: {missed} of {used + missed} files and rows match nothing ({shown}). Correct names "
            f"or the table's patterns, or bear it with max_unmatched_share="
            f"{min(1.0, missed / (used + missed) + 0.005):.2f}"
        )


def csv_ids(rows: Iterable[str], pictures: set[str], into: Unmatched, file: str) -> None:
    """Tells of image ids of a CSV that no picture has, and of pictures that it has no row of."""
    named = dict.fromkeys(rows)
    loosely = {folded(name) for name in pictures}
    for name in named:
        if name not in pictures and folded(name) not in loosely:
            into.add("row_without_picture", f"{file}: {name}")
    loosely = {folded(name) for name in named}
    for name in sorted(name for name in pictures - named.keys() if folded(name) not in loosely):
        into.note("picture_without_row", f"{file}: {name}")
