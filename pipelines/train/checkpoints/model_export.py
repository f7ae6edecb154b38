"""From one layout of a model to the other: our export, and the released checkpoint."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines.evaluate.models import export_seen_at, find_export
from pipelines.evaluate.presence import RULE
from pipelines.train.checkpoints.export import export_checkpoint, is_checkpoint
from unigeoseg.errors import UserError
from unigeoseg.export import load_export, save_export
from unigeoseg.released.folder import is_released, load_released, read_unused, save_released, write_unused

RELEASED, OURS = "released", "unigeoseg"


def convert_model(model: str | Path, to: str, out: str | Path) -> dict[str, Any]:
    """Writes ``model`` in another layout.

    Args:
        model: an export, a run, or a released checkpoint, as a local folder; or one of a run's checkpoints
            (``RUN/checkpoints/step-00000100``), local or on ``s3://``.
        to: ``released``, or ``unigeoseg`` for our export.
        out: folder, made if needed.

    Returns:
        ``{"from", "to", "out", "tensors", "zeros", "unused"}``: tensors written, how many of them are zeros
        because nothing was known of them, and names that the released code itself never uses.

    Raises:
        UserError: the model cannot be read, or its mode has no released layout.
    """
    if is_checkpoint(model):
        return _convert_checkpoint(str(model), to, out)
    if not Path(model).exists():
        raise UserError(f"no model at {model}: give a local folder with an export or a released checkpoint")
    folder = Path(find_export(model))
    if folder.resolve() == Path(out).resolve():
        raise UserError(f"--out is the model's own folder {out}: give another one")
    if is_released(folder):
        network, tokenizer, converted = load_released(folder)
        unused = converted.unused
    else:
        network, tokenizer = load_export(folder)  # type: ignore[assignment]
        unused = read_unused(folder)
    state = network.state_dict()
    zeros, count = 0, len(state)
    if to == RELEASED:
        written = save_released(out, state, network.config, tokenizer, unused)
        count, zeros = written["keys"], written["zeros"]
    else:
        save_export(out, network, tokenizer, {"source": str(folder)}, export_seen_at(str(folder)))
        if unused:
            write_unused(out, unused)
    if (folder / RULE).is_file():  # when it says "none" belongs to the model, whatever its layout
        shutil.copyfile(folder / RULE, Path(out) / RULE)
    return {
        "from": str(folder),
        "to": to,
        "out": str(out),
        "tensors": count,
        "zeros": zeros,
        "unused": sorted(unused),
    }


def _convert_checkpoint(path: str, to: str, out: str | Path) -> dict[str, Any]:
    if to == OURS:
        tensors = export_checkpoint(path, out)["tensors"]
        return {"from": path, "to": to, "out": str(out), "tensors": tensors, "zeros": 0, "unused": []}
    with TemporaryDirectory(prefix="unigeoseg-export-") as folder:
        export_checkpoint(path, folder)
        return {**convert_model(folder, to, out), "from": path}
