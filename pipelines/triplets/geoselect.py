"""The cases of GeoSelect's project page (github Avalon-S/GeoSelect): test samples of RRSIS-D and RISBench.

``cases.json`` names the cases; ``static/cases/<id>/`` holds ``input.jpg`` and ``mask_from_gt.png``, a mask
recovered from the page's picture of the truth (``gt.jpg``, yellow at half opacity), good to about two pixels.
``iou`` of a case is what the page gives for its authors' own method, in percent.
"""

from typing import Any

from pipelines.triplets.base import Triplet, TripletImage, TripletSource, image_keys, inside
from pipelines.triplets.folder import Folder
from pipelines.triplets.truth import MaskFile
from unigeoseg.errors import UserError
from unigeoseg.tasks import REFERRING

_CASES = "cases.json"


class GeoSelectSource(TripletSource):
    """Reader of the GeoSelect cases."""

    name = "geoselect"
    title = "GeoSelect cases (RRSIS-D, RISBench)"
    expects = "cases.json, static/cases/<id>/input.jpg and mask_from_gt.png"
    licence = "academic use only (RRSIS-D and RISBench)"
    origin = "https://github.com/Avalon-S/GeoSelect"

    @classmethod
    def find(cls, folder: Folder) -> Folder | None:
        """Looks for the list beside the cases' folder."""
        return folder if folder.has(_CASES, "static/cases") else None

    def splits(self) -> list[str]:
        """All cases are test samples."""
        return ["test"]

    def images(self, split: str) -> list[TripletImage]:
        """See :meth:`TripletSource.images`."""
        where = f"{self.folder.path}/{_CASES}"
        found = []
        try:
            for case in self.folder.read_json(_CASES):
                place = inside(f"static/cases/{case['id']}", where)
                triplet = Triplet(
                    REFERRING,
                    0,
                    MaskFile(f"{place}/mask_from_gt.png"),
                    str(case["sentence"]),
                    subtask=str(case["type"]),
                    category=_selected(case.get("program")),
                    published_iou=float(case["iou"]) / 100 if "iou" in case else None,
                )
                found.append((case["id"], f"{place}/input.jpg", str(case["dataset"]), triplet))
        except (LookupError, TypeError, ValueError) as error:
            raise UserError(f"{where} is no list of cases ({error!r}); download it again") from error
        files = [file for _, file, _, t in found for file in (file, *t.truth.files())]
        self.folder.require(files, "the cases")
        keys = image_keys(case for case, *_ in found)
        return [TripletImage(keys[case], file, source, (t,)) for case, file, source, t in found]


def _selected(program: Any) -> str:
    """The category that a case's program selects, empty if it has none."""
    while isinstance(program, dict):
        if program.get("op") == "select":
            return str(program.get("type", ""))
        program = program.get("child")
    return ""
