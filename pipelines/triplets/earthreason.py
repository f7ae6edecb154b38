"""EarthReason (SegEarth-R1, arXiv 2504.09644; github earth-insights/SegEarth-R1).

``<split>/images``, ``<split>/labels`` (PNG, not 0 is foreground) and ``<split>/QAs`` with ``questions`` and
``answer`` lists, of which the first count. The authors' reader pairs the three by sorted order; here by stem,
so that a missing file is named instead of shifting all others. A sample may have no target: its
mask is empty, and it is taken as absent.
"""

import dataclasses

from pipelines.labels.unmatched import PICTURES
from pipelines.triplets.base import Triplet, TripletImage, TripletSource, grouped
from pipelines.triplets.folder import Folder
from pipelines.triplets.geoseg import first_texts
from pipelines.triplets.truth import MaskFile
from unigeoseg.tasks import REASONING

_SPLITS = ("train", "val", "test")
_PLACES = ("", "EarthReason", "RSReasonSeg", "rs_reason_seg/RSReasonSeg")
_PARTS = ("images", "labels", "QAs")
#: What the authors' reader answers where the answer is empty.
NO_TARGET = "There is no target object in the image."


class EarthReasonSource(TripletSource):
    """Reader of EarthReason."""

    name = "earthreason"
    title = "EarthReason"
    expects = "<split>/images, <split>/labels, <split>/QAs"
    licence = "as released (see github earth-insights/SegEarth-R1)"
    origin = "https://github.com/earth-insights/SegEarth-R1"

    @classmethod
    def find(cls, folder: Folder) -> Folder | None:
        """Looks for a split folder with images and QAs."""
        for place in _PLACES:
            inner = folder / place
            if any(inner.has(f"{split}/images", f"{split}/QAs") for split in _SPLITS):
                return inner
        return None

    def splits(self) -> list[str]:
        """The split folders."""
        return [split for split in _SPLITS if self.folder.has(f"{split}/images")]

    def images(self, split: str) -> list[TripletImage]:
        """See :meth:`TripletSource.images`."""
        suffixes = (".jpg", ".png", ".json")  # what a missing file is called in the message
        kinds = [
            self.folder.stems(f"{split}/{part}", (suffix, *(() if suffix == ".json" else PICTURES)))
            for part, suffix in zip(_PARTS, suffixes, strict=True)
        ]
        stems = sorted(set().union(*kinds))
        wanted = [
            f"{split}/{part}/{kind.get(stem, stem + suffix)}"
            for stem in stems
            for part, kind, suffix in zip(_PARTS, kinds, suffixes, strict=True)
        ]
        self.folder.require(wanted, f"split {split!r}")
        pairs = [
            (image, Triplet(REASONING, 0, MaskFile(mask), text_file=text))
            for image, mask, text in zip(wanted[::3], wanted[1::3], wanted[2::3], strict=True)
        ]
        return grouped(pairs, self.name)

    def complete(self, triplet: Triplet) -> Triplet:
        """Reads question and answer."""
        question, answer = first_texts(self.folder, triplet.text_file, "questions", "answer")
        return dataclasses.replace(triplet, instruction=question, answer=answer or NO_TARGET)
