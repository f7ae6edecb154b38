"""A checkpoint of the released code as the start of a training."""

from pathlib import Path

from torch import nn

from unigeoseg.released.folder import released_weights
from unigeoseg.weights.report import LoadReport, load_named


def load_released_weights(
    model: nn.Module, folder: str | Path, strict: bool = True, mapped: bool = False
) -> LoadReport:
    """Takes every parameter from a released checkpoint; the model is of its sizes, in mode ``released``.

    Tensors that the released code itself never uses, and buffers that follow from the configuration, are
    reported as unused. ``strict`` and ``mapped`` are those of :func:`~unigeoseg.weights.report.load_named`.

    Raises:
        UserError: no checkpoint there, a damaged file, or sizes and keys that do not fit.
    """
    _, converted = released_weights(folder)
    unused = [*converted.unused, *converted.buffers]
    report = LoadReport(str(folder), "released checkpoint", unused=unused)
    return load_named(model, converted.state, report, strict=strict, mapped=mapped)
