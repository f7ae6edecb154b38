"""An export of this project as the start of another training."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from unigeoseg.errors import UserError
from unigeoseg.weights.report import LoadReport, load_named

_WEIGHTS = "model.safetensors"


def load_export_weights(model: nn.Module, folder: str | Path, strict: bool = True) -> LoadReport:
    """Takes every parameter from an export folder; the tokenizer must be the export's own.

    Raises:
        UserError: no export there, a damaged file, or sizes and keys that do not fit.
    """
    path = Path(folder) / _WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder} is not an export: {_WEIGHTS} is missing (give a run's export/ folder)")
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or cut off ({error}); copy it again") from error
    return load_named(model, tensors, LoadReport(str(folder), "export"), strict=strict)
