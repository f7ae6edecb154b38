"""Which model an evaluation or prediction uses: an export, a run's export, or the same model untrained."""

import atexit
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.storage.filesystem import is_remote, open_filesystem
from pipelines.tracking.registry import SCHEME, fetch_model
from pipelines.weights.local_copy import local_copy
from pipelines.weights.references import is_reference
from unigeoseg.build import build_model
from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError
from unigeoseg.export import CONFIG, WEIGHTS, load_export, vocab_size
from unigeoseg.model import UniGeoSeg
from unigeoseg.modules.causal_lm import shapes_only
from unigeoseg.released.folder import is_released
from unigeoseg.samples.tokens import Tokenizer
from unigeoseg.segmenter import best_device as best_device


@dataclass(frozen=True)
class ModelSource:
    """How a worker gets its model.

    Attributes:
        export: an export folder, local or ``s3://``.
        untrained_seed: when given, the export's architecture with fresh weights drawn from this seed.
    """

    export: str
    untrained_seed: int | None = None

    def load(self, device: str = "cpu") -> tuple[UniGeoSeg, Tokenizer]:
        """The model in eval mode on ``device``, and its tokenizer.

        Raises:
            UserError: the export is missing, damaged, or does not fit its configuration.
        """
        if not is_remote(self.export):
            return self._load(self.export, device)
        with tempfile.TemporaryDirectory(prefix="unigeoseg-export-") as folder:
            filesystem, inside = open_filesystem(self.export)
            filesystem.get(inside + "/", folder + "/", recursive=True)
            return self._load(folder, device)

    def _load(self, folder: str, device: str) -> tuple[UniGeoSeg, Tokenizer]:
        model, tokenizer = load_export(folder, device)
        if self.untrained_seed is not None:
            # An export holds the architecture of a language model given by path, and no weights of its own.
            with torch.random.fork_rng(), shapes_only():
                torch.manual_seed(self.untrained_seed)
                size = vocab_size(model.state_dict(), tokenizer.vocab_size)
                model = build_model(model.config, size).to(device).eval()
        return model, tokenizer


def find_export(path: str | Path) -> str:
    """The export folder that ``path`` means: itself, the ``export/`` of a run folder, or a registered model.

    ``hf://ORG/NAME[@REVISION]`` is what the hub's cache holds, fetched into it where needed.
    ``models:/NAME@ALIAS`` and ``models:/NAME/VERSION`` are fetched from MLflow's registry into a folder that
    lives as long as this process.

    Raises:
        UserError: there is none; says which files were looked for.
    """
    if is_reference(str(path)):
        path = local_copy(str(path))
    if str(path).startswith(SCHEME):
        folder = tempfile.mkdtemp(prefix="unigeoseg-model-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return fetch_model(str(path), folder)
    filesystem, inside = open_filesystem(path)
    if not is_remote(path) and is_released(inside):
        return inside
    for folder, name in ((inside, str(path)), (f"{inside}/export", f"{str(path).rstrip('/')}/export")):
        if all(filesystem.exists(f"{folder}/{file}") for file in (CONFIG, WEIGHTS)):
            return name if is_remote(path) else folder
    what = "there is no such folder" if not filesystem.exists(inside) else "it holds neither"
    raise UserError(
        f"no model at {path}: {what} ({CONFIG} and {WEIGHTS}, or a run's export/ with them). "
        "Give --model the export folder of a finished run, such as runs/quickstart/export"
    )


def export_seen_at(export: str) -> dict[str, Any]:
    """At which resolution an export's model saw its training pictures; empty where it does not say."""
    filesystem, inside = open_filesystem(export)
    try:
        return dict(json.loads(filesystem.cat_file(f"{inside}/{CONFIG}")).get("seen_at") or {})
    except (FileNotFoundError, AttributeError, TypeError, ValueError):
        return {}  # a released checkpoint's


def export_config(export: str) -> ModelConfig:
    """The configuration of an export, without its weights.

    Raises:
        UserError: ``config.json`` is damaged or of another version.
    """
    filesystem, inside = open_filesystem(export)
    if not is_remote(export) and is_released(inside):
        return load_export(inside)[0].config  # its sizes stand in its tensors
    try:
        content = json.loads(filesystem.cat_file(f"{inside}/{CONFIG}"))
        return ModelConfig.from_dict(content["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{export}/{CONFIG} is not a configuration of this version ({error})") from error
