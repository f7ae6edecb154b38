"""Benchmarks with ready triplets as sources: their images, masks and texts go into a store as they are."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipelines.build.config import BuildConfig
from pipelines.build.sources.base import Refused, Source, SourceImage, SourceItem, Triplet, UnusableImage
from pipelines.store.record import BadRecord
from pipelines.triplets.base import TripletImage, TripletSource
from pipelines.triplets.layouts import LAYOUTS, open_layout
from pipelines.triplets.truth import decode_picture
from unigeoseg.batch import Sample
from unigeoseg.errors import UserError


class ReadySource:
    """Adapter of a :class:`~pipelines.triplets.base.TripletSource`.

    Args:
        source: the reader of the layout.
    """

    def __init__(self, source: TripletSource) -> None:
        self.name, self.licence = source.name, source.licence
        self._source = source
        self._images: dict[str, tuple[str, TripletImage]] = {}
        for split in source.splits():
            for image in source.images(split):
                key = image.key if image.key not in self._images else f"{image.key}_{split}"
                self._images[key] = (split, image)

    def items(self) -> Sequence[SourceItem]:
        """Every image of every split; the split is the benchmark's own."""
        place = self._source.folder.path
        return [
            SourceItem(key, key, key, {"file": f"{place}/{image.file}"}, split)
            for key, (split, image) in self._images.items()
        ]

    def read(self, item: SourceItem) -> SourceImage:
        """Reads an image with all its samples.

        Raises:
            UnusableImage: the image, or all of its samples, cannot be used.
        """
        _, image = self._images[item.key]
        stretched = self._source.stretched
        try:
            picture = decode_picture(self._source.folder.read(image.file), image.file)
            pixels = picture.pixels()
            height, width = picture.height, picture.width
        except (BadRecord, UnusableImage) as error:
            raise UnusableImage(error.reason, image.file, error.detail) from error
        ready: list[Triplet] = []
        refused: list[Refused] = []
        for triplet in image.triplets:
            try:
                sample = self._source.read_sample(image, triplet, height, width, picture.turn)
            except BadRecord as error:
                name = f"{image.sample_id(triplet, self.name)}: {error.detail}"
                refused.append(Refused(triplet.task, error.reason, name, error.detail))
            else:
                ready.append(_triplet(sample))
        if refused and not ready:
            raise UnusableImage(refused[0].reason, image.file, refused[0].detail)
        return SourceImage(
            pixels,
            np.zeros(pixels.shape[:2], np.int32),
            encoded=picture.encoded,
            extension=picture.extension,
            triplets=ready,
            refused=refused,
            noted={"mask_stretched": self._source.stretched - stretched},
        )


def _triplet(s: Sample) -> Triplet:
    assert s.mask is not None
    return Triplet(
        s.task, s.subtask, s.instruction, s.mask, s.answer, s.category_id, s.category, s.box, s.points
    )


def ready_openers() -> dict[str, Callable[[Path | None, BuildConfig], Source]]:
    """What opens each layout as a source, by the layout's name."""

    def of(name: str) -> Callable[[Path | None, BuildConfig], Source]:
        def opener(root: Path | None, config: BuildConfig) -> Source:
            if root is None:
                raise UserError(f"source {name} needs --root: the folder that holds {LAYOUTS[name].expects}")
            if config.source:
                raise UserError(
                    f"source {name} has no options: remove build.source ({', '.join(config.source)})"
                )
            return ReadySource(open_layout(str(root), name))

        return opener

    return {name: of(name) for name in LAYOUTS}
