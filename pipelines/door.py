"""What :func:`unigeoseg.load` looks up here by name: models by reference, and pictures as files.

``unigeoseg`` imports nothing of this package (``CONTRIBUTING.md``), and needs none of it for a folder and an
array. No Ray is imported; MLflow is for ``models:/`` alone.
"""

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.image_file import read_image
from pipelines.evaluate.models import ModelSource
from pipelines.evaluate.models import find_export as find_export
from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.tokens import Tokenizer


def open_model(reference: str, device: str) -> tuple[UniGeoSeg, Tokenizer]:
    """The model in eval mode on ``device``, and its tokenizer.

    Args:
        reference: export or run folder, ``s3://…``, ``models:/NAME@ALIAS``, ``hf://ORG/NAME[@REVISION]``.
        device: such as ``cpu`` or ``cuda:0``.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return ModelSource(find_export(reference)).load(device)


def read(path: str) -> NDArray[np.uint8]:
    """A picture file as uint8 RGB ``[H, W, 3]``, by the rules of ``docs/files.md``.

    Raises:
        UserError: there is no such file, or it is no readable image.
    """
    return read_image(path)
