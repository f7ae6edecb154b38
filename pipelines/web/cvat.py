"""An auto-annotation function for CVAT, as its SDK calls it; this module is what its command line is given.

``cvat-cli … task auto-annotate TASK --function-module pipelines.web.cvat -p model=str:runs/quickstart/export
-p labels=str:Building,Road`` asks for "the building" and "the road" in every frame. ``Building=all the
houses;Road`` says what is asked for a label.
"""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.predict import answer_of, none_rule
from unigeoseg.errors import UserError
from unigeoseg.outlines import mask_polygons
from unigeoseg.question import Question
from unigeoseg.segmenter import load

#: A ring that encloses fewer pixels is no polygon that a person would draw.
_LEAST = 4


class Function:
    """Segments each label's phrase in a frame.

    Args:
        model: by reference.
        labels: names of the task's labels with commas or semicolons between them, each with ``=`` and what is
            asked where that is not "the" and its name.
        device: such as ``cuda:0``; empty: a GPU where there is one.
        threshold: probability above which a pixel is in a mask; 0: the model's own.

    Raises:
        UserError: there is no such model, no label, or CVAT's SDK is not installed.
    """

    def __init__(self, model: str, labels: str, device: str = "", threshold: float = 0.0) -> None:
        self._sdk, self._masks = _sdk("cvat_sdk.auto_annotation"), _sdk("cvat_sdk.masks")
        parts = [part.partition("=") for part in labels.replace(";", ",").split(",") if part.strip()]
        self._texts = {name.strip(): text.strip() or f"the {name.strip().lower()}" for name, _, text in parts}
        if not self._texts:
            raise UserError("labels: give the names of the task's labels, such as labels=str:Building,Road")
        self._segmenter = load(model, device or None)
        self._threshold = threshold or self._segmenter.threshold
        self._rule = none_rule(self._segmenter.source, True)

    @property
    def spec(self) -> Any:
        """The labels, numbered from 0."""
        labels = [self._sdk.label_spec(name, number) for number, name in enumerate(self._texts)]
        return self._sdk.DetectionFunctionSpec(labels=labels)

    def detect(self, context: Any, image: Any) -> list[Any]:
        """Masks (or polygons, where the context asks for them) of a frame.

        Args:
            context: CVAT's, with a least score and whether masks become polygons.
            image: Pillow's.
        """
        pixels = np.ascontiguousarray(np.asarray(image.convert("RGB")))
        height, width = pixels.shape[:2]
        seen = self._segmenter.look(pixels)
        found: list[Any] = []
        for number, text in enumerate(self._texts.values()):
            asked = Question.ask(text)
            (square,) = self._segmenter.squares([pixels], [asked], seen)
            said = answer_of(square, height, width, asked, self._threshold, self._rule).found
            if said.mask.any() and said.score >= (context.conf_threshold or 0):
                found += self._shapes(number, said.mask, bool(context.conv_mask_to_poly))
        return found

    def _shapes(self, number: int, mask: NDArray[np.bool_], polygons: bool) -> list[Any]:
        if not polygons:
            return [self._sdk.mask(number, self._masks.encode_mask(mask))]
        rings = [np.asarray(shape["coordinates"][0][:-1], np.float64) for shape in mask_polygons(mask)]
        return [self._sdk.polygon(number, ring.ravel().tolist()) for ring in rings if _area(ring) >= _LEAST]


def _area(ring: NDArray[np.float64]) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2


def _sdk(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            "CVAT's SDK is not installed: pip install cvat-sdk (and cvat-cli to call it)"
        ) from error


#: What CVAT's command line calls with the parameters that it is given.
create = Function
