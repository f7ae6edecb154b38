"""The UniGeoSeg model and its mathematics in plain PyTorch: no Ray, no MLflow.

In a line: ``unigeoseg.load("runs/quickstart/export").segment("x.png", text="the largest lake").mask``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from unigeoseg.segmenter import Segmenter


def load(reference: "str | Path", device: "str | torch.device | None" = None) -> "Segmenter":
    """A model that segments pictures; see :func:`unigeoseg.segmenter.load`."""
    from unigeoseg.segmenter import load as load_segmenter  # PyTorch is imported when it is needed

    return load_segmenter(reference, device)
