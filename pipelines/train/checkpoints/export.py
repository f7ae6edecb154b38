"""An export from a checkpoint alone: no cluster, no process group, no DeepSpeed."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.config import Config
from pipelines.models.initial import keep_unused
from pipelines.models.job_model import exported_state, with_local_language
from pipelines.plan.seen_at import SEEN_AT
from pipelines.runs.folder import CONFIG, TOKENIZER, RunFolder
from pipelines.runs.manifest import MANIFEST, find_problem
from pipelines.storage.yaml_text import load_yaml
from pipelines.train.checkpoints.frozen import read_frozen
from pipelines.train.engine.shards import LAYOUT, ShardReader
from unigeoseg.errors import UserError
from unigeoseg.export import write_export
from unigeoseg.samples.tokens import load_tokenizer


def is_checkpoint(path: str | Path) -> bool:
    """Whether ``path`` is a checkpoint's folder inside a run."""
    folder = RunFolder(path)
    try:
        return folder.exists(MANIFEST) and folder.exists(LAYOUT)
    finally:
        folder.close()


def export_checkpoint(path: str | Path, out: str | Path) -> dict[str, Any]:
    """Writes the model of a checkpoint as an export.

    The weights are the optimizer's float32 masters. Frozen ones are taken from the run's own file, in the
    precision in which the run computed with them; adapters are merged.

    Args:
        path: ``RUN/checkpoints/step-00000100``, in a folder or on ``s3://``.
        out: local folder, made if needed.

    Returns:
        ``{"step", "tensors"}``.

    Raises:
        UserError: the checkpoint is damaged, or its run folder lacks configuration or tokenizer.
    """
    run_path, _, name = str(path).rstrip("/").rsplit("/", 2)
    run, inside = RunFolder(run_path), f"checkpoints/{name}"
    try:
        return _export(run, inside, Path(out))
    finally:
        run.close()


def _export(run: RunFolder, name: str, out: Path) -> dict[str, Any]:
    problem = find_problem(run, name)
    if problem is not None:
        raise UserError(f"{run.path}/{name} is damaged: {problem}; take another checkpoint of the run")
    for needed in (CONFIG, TOKENIZER, name):
        if not run.fetch(needed):
            raise UserError(f"{run.path}/{needed} is missing: an export needs the run's own")
    config = Config.model_validate(load_yaml((run.base / CONFIG).read_text(encoding="utf-8")))
    state = json.loads((run.base / name / "state.json").read_text(encoding="utf-8"))
    reader = ShardReader.open(run.base / name)
    tensors = {parameter: reader.whole(parameter) for parameter in reader.shapes}
    if state.get("frozen"):
        lower = config.train.precision == "bf16" and state["zero_stage"] > 0
        tensors |= {
            key: _as_computed(tensor, lower) for key, tensor in read_frozen(run, state["frozen"]).items()
        }
    tensors |= {key: tensors[of] for key, of in reader.tied.items()}
    tensors = exported_state(config, tensors)
    tokenizer = load_tokenizer(str(run.base / TOKENIZER), config.model.mode)
    note = {"run": run.name, "step": state["step"]}
    write_export(out, tensors, with_local_language(config).model, tokenizer, note, read_seen_at(run))
    keep_unused(config, out)
    return {"step": state["step"], "tensors": len(tensors)}


def read_seen_at(run: RunFolder) -> dict[str, Any]:
    """At which resolution a run saw its training pictures; empty where it did not keep that."""
    if not run.fetch(SEEN_AT):
        return {}
    return dict(json.loads((run.base / SEEN_AT).read_text(encoding="utf-8")))


def _as_computed(tensor: Tensor, lower: bool) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return (tensor.to(torch.bfloat16) if lower else tensor).float()
