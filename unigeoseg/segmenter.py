"""The model as a person uses it: pictures and instructions in, masks, scores and polygons out.

>>> import unigeoseg
>>> model = unigeoseg.load("runs/quickstart/export")          # or s3://…, models:/…, hf://…, a run
>>> found = model.segment("scene.tif", text="the largest lake")
>>> found.mask, found.score, found.polygons

Plain PyTorch. What needs storage, a hub, a registry or raster files is no part of this package, which imports
nothing of ``pipelines``. It is looked up by name when it is asked for (:data:`DOOR`), so that the model works
without it: then a reference must be a folder and a picture an array, and the refusal says so.
"""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray

from unigeoseg.errors import UserError
from unigeoseg.export import CONFIG, load_export
from unigeoseg.metrics import logit
from unigeoseg.model import Seen, UniGeoSeg
from unigeoseg.outlines import mask_polygons
from unigeoseg.question import Question
from unigeoseg.samples.collate import Collator
from unigeoseg.samples.letterbox import Letterbox, unletterbox
from unigeoseg.samples.sample import ImageGroup, Sample
from unigeoseg.samples.tokens import Tokenizer

#: The module that knows storage and picture files: ``open_model(reference, device)`` and ``read(path)``.
DOOR = "pipelines.door"
#: A picture: a path or URL, or uint8 ``[H, W, 3]`` (RGB) or ``[H, W]`` (grey); Pillow's are arrays too.
Image: TypeAlias = "str | os.PathLike[str] | NDArray[np.uint8]"
#: A mask's outline in pixels, as GeoJSON writes a polygon.
Polygon: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Segmentation:
    """What was found in a picture.

    Attributes:
        mask: bool ``[H, W]`` at the picture's size.
        score: mean foreground probability inside the mask; 0 where it is empty.
        question: what was asked.
    """

    mask: NDArray[np.bool_]
    score: float
    question: Question

    @cached_property
    def polygons(self) -> list[Polygon]:
        """Outlines along pixel edges, x right and y down in pixels: one GeoJSON polygon a 4-connected region.

        Filled again they give :attr:`mask`. ``shapely.geometry.shape`` reads them.
        """
        return mask_polygons(self.mask)


def best_device() -> str:
    """``cuda`` where this process has a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load(reference: str | Path, device: str | torch.device | None = None) -> "Segmenter":
    """A model that segments pictures.

    Args:
        reference: an export's folder; with the ``pipelines`` package also a run folder, ``s3://…``,
            ``models:/NAME@ALIAS`` (MLflow) and ``hf://ORG/NAME[@REVISION]``.
        device: such as ``cuda:1``; ``None``: a GPU where there is one, else the CPU.

    Raises:
        UserError: there is no such model or device, or the model is damaged.
    """
    where = _device(device)
    source = str(reference)
    if (Path(reference) / CONFIG).is_file():
        model, tokenizer = load_export(reference, where)
    else:
        door = _door(f"{reference} is no export's folder")
        source = door.find_export(source)
        model, tokenizer = door.open_model(source, str(where))
    return Segmenter(model, tokenizer, source)


class Segmenter:
    """A loaded model.

    Args:
        model: in eval mode, on its device.
        tokenizer: its own.
        source: the export that they come from, if that is known.
    """

    def __init__(self, model: UniGeoSeg, tokenizer: Tokenizer, source: str | None = None) -> None:
        self.model, self.tokenizer, self.source = model, tokenizer, source
        self._collate = Collator(tokenizer, model.config, model.config.language.max_positions)

    @property
    def device(self) -> torch.device:
        """Where the model computes; :meth:`to` moves it."""
        return next(self.model.parameters()).device

    @property
    def threshold(self) -> float:
        """Probability above which a pixel is foreground where nobody asks for another."""
        return self.model.config.threshold

    @property
    def image_size(self) -> int:
        """Side of the square that the model sees, in pixels."""
        return self.model.config.image_size

    def to(self, device: str | torch.device) -> "Segmenter":
        """Moves the model.

        Raises:
            UserError: there is no such device here.
        """
        self.model.to(_device(device))
        return self

    @overload
    def segment(  # type: ignore[overload-overlap]  # a string is a sequence of strings: it is a path here
        self,
        image: Image,
        *,
        text: str | None = ...,
        question: str | None = ...,
        box: Sequence[float] | None = ...,
        points: Sequence[Sequence[float]] = ...,
        threshold: float | None = ...,
        batch: int = ...,
    ) -> Segmentation: ...

    @overload
    def segment(
        self,
        image: "Sequence[str | os.PathLike[str]] | Sequence[NDArray[np.uint8]]",
        *,
        text: str | None = ...,
        question: str | None = ...,
        box: Sequence[float] | None = ...,
        points: Sequence[Sequence[float]] = ...,
        threshold: float | None = ...,
        batch: int = ...,
    ) -> list[Segmentation]: ...

    def segment(
        self,
        image: Any,
        *,
        text: str | None = None,
        question: str | None = None,
        box: Sequence[float] | None = None,
        points: Sequence[Sequence[float]] = (),
        threshold: float | None = None,
        batch: int = 8,
    ) -> Segmentation | list[Segmentation]:
        """Segments what one instruction asks for, in one picture or in each of a list.

        Args:
            image: a path or URL, an array uint8 ``[H, W, 3]`` (RGB) or ``[H, W]``, or a list of them.
            text: a phrase: "the northern of the two ships".
            question: a question: "where would a plane wait for its passengers?"
            box: x0, y0, x1, y1 in [0, 1] of the picture: x right, y down.
            points: one to three x, y in [0, 1].
            threshold: probability in (0, 1) above which a pixel belongs to the mask; ``None``: the model's.
            batch: pictures of a list that are computed at once.

        Returns:
            A result, or a list of them where ``image`` is one.

        Raises:
            UserError: a picture cannot be used, or the instruction is none, several, or too long.
        """
        asked = Question.ask(text, box, points, question=question)
        single = isinstance(image, str | os.PathLike | np.ndarray) or hasattr(image, "__array_interface__")
        images = [image] if single else list(image)
        threshold = self.threshold if threshold is None else threshold
        if not 0 < threshold < 1:
            raise UserError(f"threshold {threshold} is no probability between 0 and 1")
        if batch < 1:
            raise UserError(f"batch {batch}: at least one picture is computed at once")
        found: list[Segmentation] = []
        for start in range(0, len(images), batch):
            part = [self._pixels(one) for one in images[start : start + batch]]
            logits = self.logits(part, [asked] * len(part))
            found += [cut(values, asked, threshold) for values in logits]
        return found[0] if single else found

    def logits(
        self, images: Sequence[NDArray[np.uint8]], questions: Sequence[Question]
    ) -> list[NDArray[np.float32]]:
        """Mask logits float32 ``[H, W]`` at the size of each picture.

        Args:
            images: uint8 RGB ``[H, W, 3]``, all computed at once.
            questions: one for each.

        Raises:
            UserError: an instruction is too long for the model.
        """
        squares = self.squares(images, questions)
        return [unletterbox(square, *image.shape[:2]) for square, image in zip(squares, images, strict=True)]

    def look(self, image: NDArray[np.uint8]) -> Seen:
        """Looks at a picture uint8 RGB ``[H, W, 3]`` once, for many instructions (:meth:`squares`)."""
        return self.model.look(torch.from_numpy(self._collate.pictures([image])).to(self.device))

    def squares(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[Question],
        seen: Seen | None = None,
    ) -> NDArray[np.float32]:
        """Mask logits float32 ``[B, S, S]`` of the letterboxed pictures, as the model gives them.

        Args:
            images: uint8 RGB ``[H, W, 3]``, all computed at once.
            questions: one for each.
            seen: what :meth:`look` gave for the one picture: the same logits, and only the instruction is
                computed.

        Raises:
            UserError: an instruction is too long for the model.
        """
        groups = [
            ImageGroup(
                image, (Sample("prediction", asked.task, asked.text, box=asked.box, points=asked.points),)
            )
            for image, asked in zip(images, questions, strict=True)
        ]
        batch = self._collate(groups).to(self.device)
        found: NDArray[np.float32] = self.model.predict(batch, seen).float().cpu().numpy()
        return found

    def check(self, image: NDArray[np.uint8], question: Question) -> None:
        """Refuses an instruction that the model cannot take.

        Raises:
            UserError: it is too long.
        """
        asked = Sample("prediction", question.task, question.text, box=question.box, points=question.points)
        self._collate.check(asked, image)

    def _pixels(self, image: Image) -> NDArray[np.uint8]:
        name = "the array"
        if not isinstance(image, str | os.PathLike):
            pixels = _as_rgb(np.asarray(image))
        else:
            name = os.fspath(image)
            pixels = cast(NDArray[np.uint8], _door(f"picture {name} is a file").read(name))
        check_shape(pixels, self.image_size, self.model.config.vision.patch, name)
        return pixels


def cut(logits: NDArray[np.float32], question: Question, threshold: float) -> Segmentation:
    """Mask and score of mask logits ``[H, W]``.

    Args:
        logits: of one picture.
        question: what was asked.
        threshold: probability in (0, 1) above which a pixel is foreground.
    """
    mask = logits > logit(threshold)
    score = float((1 / (1 + np.exp(-logits[mask].astype(np.float64)))).mean()) if mask.any() else 0.0
    return Segmentation(mask, score, question)


def check_shape(image: NDArray[np.uint8], size: int, smallest: int, path: str | Path) -> None:
    """Refuses an image that letterboxing would make thinner than ``smallest`` pixels.

    Raises:
        UserError: with its shape and the remedy.
    """
    height, width = image.shape[:2]
    fit = Letterbox.fit(height, width, size)
    if min(height, width, fit.inner_height, fit.inner_width) < smallest:
        raise UserError(
            f"{path} is {width} x {height} pixels: too thin to segment (its short side must be at least "
            f"{smallest} pixels, also when the long side is {size}); crop it"
        )


def _as_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    if image.dtype != np.uint8:
        raise UserError(
            f"the array's values are {image.dtype}: give uint8 (scale to 0..255, or give the file's path)"
        )
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(
            f"the array's shape is {image.shape}: give [height, width, 3] in RGB, or [height, width]"
        )
    return np.ascontiguousarray(image)


def _device(device: str | torch.device | None) -> torch.device:
    try:
        found = torch.device(device or best_device())
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise UserError(f"device {device}: not on this machine ({str(error).splitlines()[0]})") from error
    return found


def _door(why: str) -> Any:
    try:
        return importlib.import_module(DOOR)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != DOOR.partition(".")[0]:
            raise
        raise UserError(
            f"{why}, and the package pipelines, which fetches models and reads picture files, is not "
            "installed: install the whole project, or give a folder and an array"
        ) from error
