"""The whole path at small size: a synthetic store, training, evaluation, report."""

import json
import logging
from typing import Any

from pipelines.build import build_store
from pipelines.build.card import config_hash
from pipelines.cluster_view.session import ray_session
from pipelines.config import Config
from pipelines.config.building import BuildConfig
from pipelines.evaluate.report import EVALUATION, PLOTS, REPORT
from pipelines.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    EXPORT,
    LEDGER,
    METRICS,
    SUMMARY,
    TOKENIZER,
    RunFolder,
)
from pipelines.runs.mlflow_link import MLFLOW
from pipelines.runs.status import STATUS
from pipelines.storage.filesystem import open_filesystem
from pipelines.storage.lease import holder_of
from pipelines.storage.yaml_text import load_yaml
from pipelines.tracking.tracker import UNSENT
from pipelines.train import train
from pipelines.train.loop.stalls import STACKS
from unigeoseg.errors import UserError

SOURCE, STORE = "synthetic", "store"
#: What a run writes into its folder; the configuration goes last, because it marks the folder as a run's.
RUN_FILES = (
    *(SUMMARY, REPORT, PLOTS, EVALUATION, EXPORT, CHECKPOINTS, METRICS, LEDGER, UNSENT, TOKENIZER),
    *("diagnostics", "quarantine.jsonl", STACKS, STATUS, MLFLOW, CONFIG),
)
_LOG = logging.getLogger(__name__)


def run_quickstart(config: Config, run: str, progress: bool = True) -> dict[str, Any]:
    """Builds the synthetic store of ``config.build`` in the run folder, then trains on it and evaluates.

    Args:
        config: with a ``build`` section.
        run: the run folder; an earlier run in it is replaced, its store is kept when it is the same.
        progress: shows progress bars on a terminal.

    Returns:
        The content of ``summary.json``.

    Raises:
        UserError: the configuration has no ``build`` section, or the run folder cannot be written.
    """
    store = f"{run.rstrip('/')}/{STORE}"
    with ray_session(config):
        prepare_store(config.build, store, progress)
        clear_run(config, run)
        return train(config, store, run, progress=progress)


def clear_run(config: Config, run: str) -> None:
    """Removes an earlier run of the same name; its store stays, and so do files that no run writes.

    Another run's folder is left alone, and refused by the training that follows.
    """
    folder = RunFolder(run)
    try:
        saved = load_yaml(folder.fs.cat_file(f"{folder.root}/{CONFIG}"))
    except FileNotFoundError:
        return
    if not isinstance(saved, dict) or saved.get("name") != config.name:
        return
    if (holder := holder_of(folder)) is not None and holder.alive:
        return  # the training that follows refuses, and says who is at work there
    _LOG.info("replacing the earlier run in %s", folder.path)
    for name in RUN_FILES:
        if folder.exists(name):
            folder.fs.rm(f"{folder.root}/{name}", recursive=True)


def prepare_store(build: BuildConfig | None, store: str, progress: bool = True) -> bool:
    """Builds the store unless a finished one of the same configuration is there; whether it built.

    Raises:
        UserError: there is nothing to build, or ``store`` cannot be written.
    """
    if build is None:
        raise UserError(
            "this preset has no build section, so there is no store to make; use --preset quickstart, "
            "or `unigeoseg train` with a store of your own"
        )
    if _built_with(store) == config_hash(SOURCE, build):
        _LOG.info("the store %s is there already", store)
        return False
    build_store(SOURCE, None, store, build, progress=progress, force=True)
    return True


def _built_with(store: str) -> str | None:
    """Hash of the configuration that a finished store was built with; None without one."""
    filesystem, root = open_filesystem(store)
    try:
        card = json.loads(filesystem.cat_file(f"{root}/dataset.json"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return card.get("config_hash") if isinstance(card, dict) else None
