"""SIOR of SAMRS (arXiv 2305.02034): instance masks on DIOR's images, here as box and point prompts.

``hbox_segs_trainvaltest_init/ins/<image>.pkl`` is a pickled list of ``{"mask": RLE, "category", …}`` (written
by ``main_sam_hbox_semantic.py`` of github ViTAE-Transformer/SAMRS); the images lie in
``JPEGImages-trainval/`` and ``JPEGImages-test/``. Each instance becomes two interactive samples: its tight
box, and the one point deepest inside. How the paper drew its prompts is not published.
"""

import logging
from collections.abc import Iterator
from typing import Any

from pycocotools import mask as coco_mask

from pipelines.labels.unmatched import PICTURES
from pipelines.triplets.base import Box, Triplet, TripletImage, TripletSource, grouped
from pipelines.triplets.folder import Folder
from pipelines.triplets.truth import Segments
from unigeoseg.errors import UserError
from unigeoseg.samples.prompts import interactive_sentence
from unigeoseg.tasks import INTERACTIVE
from unigeoseg.weights.pickle_file import parse_pickle

_LOG = logging.getLogger(__name__)
_PLACES = ("", "SIOR", "dior")
_IMAGES = "JPEGImages-"


class SIORSource(TripletSource):
    """Reader of SIOR."""

    name = "sior"
    title = "SIOR (SAMRS)"
    expects = "hbox_segs_*_init/ins/*.pkl, JPEGImages-trainval/, JPEGImages-test/"
    licence = "research use only (DIOR imagery)"
    origin = "https://github.com/ViTAE-Transformer/SAMRS"

    @classmethod
    def find(cls, folder: Folder) -> Folder | None:
        """Looks for the pickles' folder."""
        return next((folder / place for place in _PLACES if _notes(folder / place)), None)

    def splits(self) -> list[str]:
        """By the image folders."""
        return sorted(n.removeprefix(_IMAGES) for n in self.folder.names() if n.startswith(_IMAGES))

    def images(self, split: str) -> list[TripletImage]:
        """See :meth:`TripletSource.images`."""
        place, notes = f"{_IMAGES}{split}", _notes(self.folder)
        pictures = sorted(self.folder.stems(place, (".jpg", *PICTURES)).values())
        files = {name: f"{notes}/{name.rpartition('.')[0]}.pkl" for name in pictures}
        self.folder.require(files.values(), f"split {split!r}")
        pairs, empty = [], 0
        for name, file in files.items():
            where = f"{self.folder.path}/{file}"
            content = parse_pickle(self.folder.read(file), where)
            found = list(_triplets(content, where))
            pairs += [(f"{place}/{name}", triplet) for triplet in found]
            empty += len(content) - len(found) // 2
        if empty:
            _LOG.info("%s: %d instances have an empty mask and give no sample", self.folder.path, empty)
        return grouped(pairs, self.name)


def _notes(folder: Folder) -> str:
    named = sorted(n for n in folder.names() if n.startswith("hbox_segs"))
    return next((f"{n}/ins" for n in named if folder.has(f"{n}/ins")), "")


def _triplets(content: Any, where: str) -> Iterator[Triplet]:
    try:
        for number, instance in enumerate(content):
            runs, category = instance["mask"], str(instance["category"])
            try:
                box = _tight_box(runs)
            except (TypeError, LookupError, ValueError, AttributeError):
                # Runs that are none are refused when they are read: these two samples alone.
                for n in (2 * number, 2 * number + 1):
                    yield Triplet(INTERACTIVE, n, Segments(runs), category=category)
                continue
            if box is None:
                continue  # SAM found nothing in this box
            truth = Segments(runs)
            text = interactive_sentence(box=box)
            yield Triplet(INTERACTIVE, 2 * number, truth, text, subtask="box", category=category, box=box)
            yield Triplet(INTERACTIVE, 2 * number + 1, truth, subtask="point", category=category)
    except (TypeError, LookupError, ValueError) as error:
        raise UserError(
            f"{where} is no list of instances with masks ({error!r}); download it again"
        ) from error


def _tight_box(runs: dict[str, Any]) -> Box | None:
    height, width = (int(v) for v in runs["size"])
    x, y, w, h = (
        float(v) for v in coco_mask.toBbox({"size": runs["size"], "counts": runs["counts"].encode()})
    )
    if w <= 0 or h <= 0:
        return None
    return x / width, y / height, (x + w) / width, (y + h) / height
