"""DIOR-RSVG (RSVG-pytorch, IEEE TGRS 2023): a box for each description; boxes are compared, not masks.

``Annotations/*.xml`` in VOC form with a ``description`` an object, ``JPEGImages/``, and ``<split>.txt`` with
one number a line: the place of an object among all objects, counted over the annotation files. The authors'
reader counts in the order in which the disk lists the files; here they are sorted by name.
"""

from collections.abc import Iterator
from xml.etree import ElementTree

import defusedxml
import defusedxml.ElementTree

from pipelines.triplets.base import Triplet, TripletImage, TripletSource, grouped, inside
from pipelines.triplets.folder import Folder
from pipelines.triplets.truth import FilledBox
from unigeoseg.errors import UserError
from unigeoseg.tasks import REFERRING

_SPLITS = ("train", "val", "test")
_PLACES = ("", "DIOR_RSVG", "DIOR-RSVG")
_NOTES, _IMAGES = "Annotations", "JPEGImages"


class DiorRSVGSource(TripletSource):
    """Reader of DIOR-RSVG."""

    name = "dior-rsvg"
    title = "DIOR-RSVG"
    expects = "Annotations/*.xml with descriptions, JPEGImages/, <split>.txt with object numbers"
    licence = "academic use only (DIOR imagery)"
    origin = "https://github.com/ZhanYang-nwpu/RSVG-pytorch"
    boxes = True

    @classmethod
    def find(cls, folder: Folder) -> Folder | None:
        """Looks for annotations beside a list of a split."""
        for place in _PLACES:
            inner = folder / place
            if inner.has(_NOTES) and any(inner.has(f"{split}.txt") for split in _SPLITS):
                return inner
        return None

    def splits(self) -> list[str]:
        """The lists that are there."""
        return [split for split in _SPLITS if self.folder.has(f"{split}.txt")]

    def images(self, split: str) -> list[TripletImage]:
        """See :meth:`TripletSource.images`."""
        wanted = self._numbers(split)
        counts: dict[str, int] = {}
        pairs, number = [], 0
        for number, (file, element) in enumerate(self._objects()):
            if number in wanted:
                n = counts[file] = counts.get(file, -1) + 1
                pairs.append((file, _triplet(element, n)))
        if wanted and max(wanted) > number:
            raise UserError(
                f"{self.folder.path}/{split}.txt names object {max(wanted)}, but {_NOTES} holds "
                f"{number + 1} objects: some annotation files are missing; complete the download"
            )
        self.folder.require({file for file, _ in pairs}, f"split {split!r}")
        return grouped(pairs, self.name, _IMAGES)

    def _numbers(self, split: str) -> set[int]:
        lines = self.folder.read(f"{split}.txt").decode("utf-8-sig", "replace").split()
        try:
            return {int(line) for line in lines}
        except ValueError as error:
            raise UserError(
                f"{self.folder.path}/{split}.txt holds no numbers ({error}); correct it"
            ) from error

    def _objects(self) -> Iterator[tuple[str, ElementTree.Element]]:
        for name in sorted(n for n in self.folder.names(_NOTES) if n.lower().endswith(".xml")):
            where = f"{self.folder.path}/{_NOTES}/{name}"
            root = parse_xml(self.folder.read(f"{_NOTES}/{name}"), where)
            named = (root.findtext("filename") or "").strip() or f"{name[:-4]}.jpg"
            file = inside(f"{_IMAGES}/{named}", where)
            yield from ((file, element) for element in root.iter("object"))


def parse_xml(data: bytes, where: str) -> ElementTree.Element:
    """The root of an XML file; one that declares entities is refused, so nothing is ever expanded.

    Raises:
        UserError: no XML, or a document type declaration, in whatever encoding.
    """
    try:
        root: ElementTree.Element = defusedxml.ElementTree.fromstring(data, forbid_dtd=True)
        return root
    except defusedxml.DefusedXmlException as error:
        raise UserError(f"{where} declares XML entities, which no annotation needs; it is refused") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(f"{where} is no readable XML ({error}); download it again") from error


def _triplet(element: ElementTree.Element, n: int) -> Triplet:
    box = element.find("bndbox")
    text = (element.findtext("description") or "").strip()
    names = ("xmin", "ymin", "xmax", "ymax")
    # What is no box is that sample's own fault, told when it is read.
    edges = tuple("" if box is None else (box.findtext(name) or "").strip() for name in names)
    category = (element.findtext("name") or "").strip()
    return Triplet(REFERRING, n, FilledBox(edges), text, category=category)
