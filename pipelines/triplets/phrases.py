"""Data sets with a line a phrase: RefSegRS (github zhu-xlab/rrsis) and RISBench (CroBIM, arXiv 2410.08613).

``output_phrase_<split>.txt`` holds lines ``<id> <phrase>``. RefSegRS: ids are numbers, files are
``images/<id>.tif`` and ``masks/<id>.tif`` (255 is foreground). RISBench: ids are file names in ``img_rgb/``
and ``mask/`` (not 0 is foreground).
"""

from typing import ClassVar

from pipelines.labels.unmatched import PICTURES
from pipelines.triplets.base import Triplet, TripletImage, TripletSource, grouped, inside
from pipelines.triplets.folder import Folder
from pipelines.triplets.truth import MaskFile
from unigeoseg.errors import UserError
from unigeoseg.tasks import REFERRING

_SPLITS = ("train", "val", "test")


class PhraseSource(TripletSource):
    """Reader of phrase lists; a subclass names the folders."""

    places: ClassVar[tuple[str, ...]]
    image_folder: ClassVar[str]
    mask_folder: ClassVar[str]

    @classmethod
    def find(cls, folder: Folder) -> Folder | None:
        """Looks for a phrase list beside the image folder."""
        for place in cls.places:
            inner = folder / place
            lists = any(inner.has(_phrases(split)) for split in _SPLITS)
            if lists and inner.has(cls.image_folder):
                return inner
        return None

    def splits(self) -> list[str]:
        """The lists that are there."""
        return [split for split in _SPLITS if self.folder.has(_phrases(split))]

    def images(self, split: str) -> list[TripletImage]:
        """See :meth:`TripletSource.images`."""
        name = _phrases(split)
        try:
            lines = self.folder.read(name).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{self.folder.path}/{name} is not UTF-8 ({error}); convert it") from error
        stems = self.folder.stems(self.image_folder, (".tif", *PICTURES))
        counts: dict[str, int] = {}
        pairs = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            key, *more = line.split(None, 1)  # by a blank or a tab
            phrase = more[0] if more else ""
            where = f"{self.folder.path}/{name}, line {number}"
            if not phrase.strip():
                raise UserError(f"{where} {line!r} is not '<id> <phrase>'; correct it")
            file = inside(key if "." in key else stems.get(key, f"{key}.tif"), where)
            n = counts[file] = counts.get(file, -1) + 1
            truth = MaskFile(f"{self.mask_folder}/{file}")
            pairs.append((f"{self.image_folder}/{file}", Triplet(REFERRING, n, truth, phrase.strip())))
        masks = [triplet.truth.files()[0] for _, triplet in pairs]
        self.folder.require([*(file for file, _ in pairs), *masks], f"split {split!r}")
        return grouped(pairs, self.name, self.image_folder)


class RefSegRSSource(PhraseSource):
    """Reader of RefSegRS."""

    name = "refsegrs"
    title = "RefSegRS"
    expects = "output_phrase_<split>.txt, images/*.tif, masks/*.tif"
    licence = "CC-BY-4.0"
    origin = "https://github.com/zhu-xlab/rrsis"
    places = ("", "RefSegRS", "rs_ref_seg/RefSegRS")
    image_folder, mask_folder = "images", "masks"


class RISBenchSource(PhraseSource):
    """Reader of RISBench."""

    name = "risbench"
    title = "RISBench"
    expects = "output_phrase_<split>.txt, img_rgb/, mask/"
    licence = "academic use only (DOTA and DIOR imagery)"
    origin = "https://github.com/HIT-SIRS/CroBIM"
    places = ("", "RISBench_dataset", "RISBench")
    image_folder, mask_folder = "img_rgb", "mask"


def _phrases(split: str) -> str:
    return f"output_phrase_{split}.txt"
