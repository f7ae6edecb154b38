"""Refer-style data sets: RRSIS-D (github Lsan2401/RMSIN), and RemoteSAM-270K in the same form.

``<name>/instances.json`` in COCO form, ``<name>/refs(unc).p`` with the expressions, and the images in
``images/<name>/JPEGImages``. Facts of the real RRSIS-D files: ``segmentation`` is a list with one compressed
RLE; ``bbox`` is x1, y1, x2, y2 and ``area`` is unreliable, so neither is used; ids count from 0 over DIOR's
20 classes; some pictures are a few pixels larger or smaller than their runs (RMSIN issue 12), and the
readers scale each by its own size, so the runs are stretched to the picture. The first sentence of an
expression counts, in its ``raw`` spelling, as in the released evaluator.
RemoteSAM-270K is read through the same interface by its authors' code (github 1e12Leon/RemoteSAM,
``refer/refer.py``); no file of it was at hand.
"""

from typing import Any, ClassVar

from pipelines.pictures.picture import USUAL, Rules
from pipelines.triplets.base import Triplet, TripletImage, TripletSource, grouped, inside
from pipelines.triplets.folder import Folder
from pipelines.triplets.truth import Segments
from unigeoseg.errors import UserError
from unigeoseg.tasks import REFERRING
from unigeoseg.weights.pickle_file import parse_pickle

_REFS = "refs(unc).p"
_INSTANCES = "instances.json"


class ReferSource(TripletSource):
    """Reader of the refer form; a subclass names the folders."""

    #: Where the data set may begin, beneath the folder given.
    places: ClassVar[tuple[str, ...]]
    #: Names of the folder that holds the two annotation files.
    inner: ClassVar[tuple[str, ...]]
    expects = "<name>/instances.json, <name>/refs(unc).p, images/<name>/JPEGImages"

    def __init__(self, folder: Folder, rules: Rules = USUAL) -> None:
        super().__init__(folder, rules)
        self._notes = next(n for n in self.inner if self._named(folder, n))
        prefix = f"{self._notes}/" if self._notes else ""
        folder.require((prefix + _INSTANCES, prefix + _REFS), "the annotations")
        self._instances = folder.read_json(prefix + _INSTANCES)
        self._where = f"{folder.path}/{prefix}"
        self._refs = parse_pickle(folder.read(prefix + _REFS), self._where + _REFS)
        if not isinstance(self._refs, list) or not all(isinstance(r, dict) for r in self._refs):
            raise UserError(f"{self._where}{_REFS} is no list of expressions; download it again")

    def __getstate__(self) -> dict[str, Any]:
        """Without the annotations: reading an image that was listed needs none."""
        return self.__dict__ | {"_instances": {}, "_refs": []}

    @classmethod
    def find(cls, folder: Folder) -> Folder | None:
        """Looks for either annotation file, so that the other can be missed by name."""
        for place in cls.places:
            if any(cls._named(folder / place, name) for name in cls.inner):
                return folder / place
        return None

    @staticmethod
    def _named(folder: Folder, name: str) -> bool:
        """Whether the folder ``name`` holds the annotations; ``instances.json`` alone is a common name."""
        prefix = f"{name}/" if name else ""
        return folder.has(prefix + _REFS) or bool(name and folder.has(prefix + _INSTANCES))

    def splits(self) -> list[str]:
        """The splits that the expressions name."""
        return sorted({str(ref.get("split")) for ref in self._refs})

    def images(self, split: str) -> list[TripletImage]:
        """See :meth:`TripletSource.images`."""
        names = {c["id"]: str(c["name"]) for c in self._instances.get("categories", ())}
        files = {i["id"]: str(i["file_name"]) for i in self._instances.get("images", ())}
        notes = {a["id"]: a for a in self._instances.get("annotations", ())}
        place = self._image_folder()
        counts: dict[str, int] = {}
        pairs = []
        for number, ref in enumerate(self._refs):
            if str(ref.get("split")) != split:
                continue
            where = f"{self._where}{_REFS}, expression {number}"
            try:
                note = notes[ref["ann_id"]]
                sentence = ref["sentences"][0]
                text = str(sentence.get("raw") or sentence["sent"])
                name = files[ref["image_id"]] if ref["image_id"] in files else str(ref["file_name"])
                truth = Segments(note.get("segmentation"), stretches=True)
            except (LookupError, TypeError, AttributeError) as error:
                raise UserError(f"{where} does not fit {_INSTANCES} ({error!r}); download both") from error
            file = inside(f"{place}/{name}" if place else name, where)
            n = counts[file] = counts.get(file, -1) + 1
            category = names.get(ref.get("category_id"), "")
            pairs.append((file, Triplet(REFERRING, n, truth, text, category=category)))
        self.folder.require({file for file, _ in pairs}, f"split {split!r}")
        return grouped(pairs, self.name, place)

    def _image_folder(self) -> str:
        options: list[Any] = [f"images/{self._notes}/JPEGImages", "images/JPEGImages", "JPEGImages", "images"]
        return next((o for o in options if self.folder.names(o)), options[0])


class RRSISDSource(ReferSource):
    """Reader of RRSIS-D."""

    name = "rrsisd"
    title = "RRSIS-D"
    licence = "academic use only (DIOR imagery)"
    origin = "https://github.com/Lsan2401/RMSIN"
    places = ("", "RRSIS-D", "rs_ref_seg/RRSIS-D")
    inner = ("rrsisd",)


class RemoteSAMSource(ReferSource):
    """Reader of RemoteSAM-270K."""

    name = "remotesam"
    title = "RemoteSAM-270K"
    licence = "not stated (see huggingface.co/datasets/1e12Leon/RemoteSAM270k)"
    origin = "https://github.com/1e12Leon/RemoteSAM"
    places = ("", "RemoteSAM-270K")
    inner = ("remotesam", "RemoteSAM-270K", "remotesam270k", "rrsisd", "")
