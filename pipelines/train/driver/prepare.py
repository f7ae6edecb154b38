"""What is checked and written before training starts: the run folder, its configuration, its tokenizer."""

import getpass
import hashlib
import json
import logging
import os
import platform
import subprocess
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipelines.config import Config
from pipelines.config.section import Section
from pipelines.plan.plan import Plan
from pipelines.plan.seen_at import SEEN_AT, seen_at
from pipelines.plan.visible import tell_vanishing
from pipelines.runs.folder import CHECKPOINTS, CONFIG, ENVIRONMENT, LEDGER, TOKENIZER, RunFolder
from pipelines.runs.job import Job
from pipelines.runs.manifest import Checkpoint, newest_checkpoint
from pipelines.runs.mlflow_link import MLFLOW, remember_run, remembered
from pipelines.runs.status import read_status
from pipelines.storage.secrets import hide, reveal
from pipelines.storage.yaml_text import dump_yaml, load_yaml
from pipelines.store.index import StoreIndex
from pipelines.stream.tokenizer import prepare_tokenizer
from pipelines.tracking.tracker import UID, TrackingRun, default_uri, flatten, try_open_run
from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)
#: Settings that may differ on resume: they do not change what is learned.
_FREE = ("checkpoint.", "tracking.", "evaluation.", "scale.cpus_per_worker", "scale.gpus_per_worker",
         "scale.resources", "train.log_every", "train.profile.",
         "model.threshold", "data.decode", "data.actors", "data.block_positions",
         "scale.min_workers", "scale.resize_seconds", "scale.workers", "engine.zero_stage",
         "engine.hpz_partition_size", "recovery.",
         "data.prefetch_batches", "data.max_bad_share", "build.", "build", "name")  # fmt: skip
_PACKAGES = ("unigeoseg", "torch", "deepspeed", "ray", "transformers", "timm", "numpy")


def prepare_run(
    config: Config,
    run: RunFolder,
    resume: bool,
    allow: Sequence[str] = (),
    check: Callable[[Checkpoint | None], None] = lambda found: None,
) -> Checkpoint | None:
    """Checks that the run can be written and may be started; saves the effective configuration.

    Args:
        config: the job.
        run: its folder.
        resume: go on with the run that is there.
        allow: keys that may differ from the run's, or sections of them.
        check: raises what else speaks against it, before anything in the folder is changed; gets the
            checkpoint that a resumed run goes on from.

    Returns:
        The checkpoint that a resumed run goes on from, or ``None``.

    Raises:
        UserError: no permission; the folder holds a run and ``resume`` is not set; or the other way round; or
            the run was made with another configuration.
    """
    run.check_writable()
    if not resume:
        if run.exists(LEDGER) or run.exists(CHECKPOINTS):
            raise UserError(
                f"{run.path} holds a run already: add --resume to go on with it, or choose another with --run"
            )
        if run.exists(TOKENIZER) and not run.exists(CONFIG):
            raise UserError(
                f"{run.path} holds a {TOKENIZER} that no run put there: choose another --run, and "
                "name a tokenizer of yours with --set tokenizer.path=…"
            )
        # What a start that failed before the first step left is of another store or configuration, perhaps.
        for name in (TOKENIZER, MLFLOW, "status.json"):
            if run.exists(name):
                run.fs.rm(f"{run.root}/{name}", recursive=True)
    if resume and not run.exists(CONFIG):
        raise UserError(f"there is no run to resume at {run.path}; leave --resume out to start one")
    found = None
    if resume:
        saved = _completed(load_yaml(run.fs.cat_file(f"{run.root}/{CONFIG}")))
        check_same(saved, config.shown(), run.path, allow)
        found = newest_checkpoint(run, checksums=False)  # the workers read every byte
    check(found)
    path = run.local(CONFIG)
    path.write_text(dump_yaml(config.shown()), encoding="utf-8")
    run.publish(CONFIG)
    return found


def _completed(saved: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration with the settings that its version did not have, at their defaults.

    Every default leaves plan, pictures, model and update as they were before the setting was there.
    """
    filled = {}
    for name, field in Config.model_fields.items():
        section = field.get_default(call_default_factory=True)
        if isinstance(section, Section | ModelConfig):
            adapter = TypeAdapter(type(section))
            with suppress(ValidationError):  # what another version had besides is told by its name
                whole = adapter.validate_python(saved.get(name, {}))
                filled[name] = adapter.dump_python(whole, mode="json")
    return saved | filled


def check_same(saved: dict[str, Any], now: dict[str, Any], where: str, allow: Sequence[str] = ()) -> None:
    """Refuses a resume that would change the run's course, unless the change is allowed by its name.

    Raises:
        UserError: names the differing keys with both values, or an allowed key that there is none of.
    """
    before, after = flatten(saved), flatten(now)
    known = sorted(before.keys() | after.keys())
    for name in allow:
        if not any(_within(key, name) for key in known):
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"--allow-config-change {name}: there is no such key{hint}")
    differing: list[tuple[str, str]] = []
    allowed: list[tuple[str, str]] = []
    for key in known:
        if before.get(key) == after.get(key) or changes_freely(key):
            continue
        line = f"  {key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        (allowed if any(_within(key, name) for name in allow) else differing).append((key, line))
    if differing:
        raise UserError(
            f"{where} was started with another configuration; give the same one to resume, start a new run "
            "with --run, or allow the change with "
            + " ".join(f"--allow-config-change {key}" for key, _ in differing)
            + ". Differing keys:\n"
            + "\n".join(line for _, line in differing)
        )
    for _, line in allowed:
        logger.warning("%s goes on with another setting, as allowed:%s", where, line)


def _within(key: str, name: str) -> bool:
    """Whether a dotted key is ``name`` or below it."""
    return key == name or key.startswith(f"{name.removesuffix('.')}.")


def changes_freely(key: str) -> bool:
    """Whether a setting may differ when a run is resumed, because it does not decide the run's course."""
    return key.startswith(_FREE)


def config_hash(config: Config) -> str:
    """SHA-256 of the settings that decide the run's course."""
    kept = {k: v for k, v in flatten(config.shown()).items() if not changes_freely(k)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def check_data(run: RunFolder, store: str, index: StoreIndex, plan: Plan, found: Checkpoint | None) -> None:
    """Refuses to go on with a run on other data than it began with.

    Raises:
        UserError: the store, or the plan that the configuration makes of it, is another one.
    """
    before = read_status(run)
    dataset = before.get("dataset_fingerprint", index.fingerprint)
    if dataset != index.fingerprint:
        raise UserError(
            f"{run.path} was trained on another store: {before.get('store')} had fingerprint {dataset[:12]}, "
            f"{store} has {index.fingerprint[:12]}; give the same store, or start a new run with --run"
        )
    fingerprint = found.state["plan_fingerprint"] if found else before.get("plan_fingerprint")
    if fingerprint not in (None, plan.fingerprint):
        raise UserError(
            f"{run.path} was trained on another plan (store, split, schedule or length differ): it has "
            f"fingerprint {fingerprint[:12]}, {store} with this configuration gives "
            f"{plan.fingerprint[:12]}; give the same, or start a new run with --run"
        )


def check_profile(config: Config, steps: int) -> None:
    """Refuses traces of steps or workers that there will not be.

    Args:
        config: the job.
        steps: of the whole run.

    Raises:
        UserError: names the setting and what the run has.
    """
    asked = config.train.profile
    if asked.steps is None:
        return
    if asked.steps[1] >= steps:
        raise UserError(
            f"train.profile.steps={list(asked.steps)} goes past the run's last step, {steps - 1}: choose "
            "others, or more train.steps"
        )
    beyond = [rank for rank in asked.ranks if not 0 <= rank < config.scale.workers]
    if beyond:
        raise UserError(
            f"train.profile.ranks names {beyond[0]}, and the run has {config.scale.workers} workers, "
            "numbered from 0"
        )


def make_job(
    config: Config, store: str, run: RunFolder, index: StoreIndex, plan: Plan, found: Checkpoint | None
) -> Job:
    """Everything that workers need: tokenizer in the run folder, MLflow run open.

    Raises:
        UserError: the configured tokenizer is none.
    """
    tell_vanishing(index, config)
    run.local(SEEN_AT).write_text(json.dumps(seen_at(index, config)) + "\n", encoding="utf-8")
    run.publish(SEEN_AT)
    if config.evaluation.every and config.engine.zero_stage == 3:
        logger.warning(
            "evaluation.every=%d does nothing with engine.zero_stage=3, where no worker has whole weights: "
            "the run is evaluated at its end; engine.zero_stage=2 evaluates on the way",
            config.evaluation.every,
        )
    run.fetch(TOKENIZER)
    prepare_tokenizer(config, index, run.local(TOKENIZER))
    run.publish(TOKENIZER)
    libraries = versions()
    run.local(ENVIRONMENT).write_text(json.dumps(libraries, indent=2) + "\n", encoding="utf-8")
    run.publish(ENVIRONMENT)
    job = Job(
        config=config,
        store=absolute(store),
        run=run.path,
        tokenizer=None if run.remote else str(run.base / TOKENIZER),
        plan_fingerprint=plan.fingerprint,
        config_hash=config_hash(config),
        tracking=_tracking(config, store, run, index, plan, found),
        versions=libraries,
    )
    return job


def absolute(path: str) -> str:
    """A local path as seen from any working directory; others as they are."""
    return path if "://" in path else str(Path(path).expanduser().resolve())


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the working tree that this code runs from, or ``None``."""
    answer = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def _tracking(
    config: Config, store: str, run: RunFolder, index: StoreIndex, plan: Plan, found: Checkpoint | None
) -> TrackingRun:
    uri, artifacts = reveal(config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or "") or None, None
    if uri is None:
        runs = Path("runs").resolve() if run.remote else run.base.parent
        runs.mkdir(parents=True, exist_ok=True)
        uri, artifacts = default_uri(runs), (runs / "mlartifacts").as_uri()
        if run.remote:
            logger.info("tracking.uri is not set: MLflow records go to %s on this machine", uri)
    known = remembered(run)
    if not known and found is not None:
        known = {"uri": hide(uri), "run_id": found.state.get("mlflow_run_id")}
    known = known if known.get("uri") == hide(uri) else {}
    tags = {
        UID: known.get("uid") or uuid.uuid4().hex,
        "dataset.fingerprint": index.fingerprint,
        "dataset.store": hide(store),
        "plan.fingerprint": plan.fingerprint,
        "run.folder": run.path,
        "mlflow.source.name": "unigeoseg train",
    }
    tags |= config.tracking.tags
    if config.tracking.parent:
        tags["mlflow.parentRunId"] = config.tracking.parent
    with suppress(KeyError, OSError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    if commit := git_commit():
        tags["mlflow.source.git.commit"] = commit
    if found is not None:
        tags["resumed.from"] = found.name
    wanted = TrackingRun(
        uri=uri,
        experiment=config.tracking.experiment,
        name=run.name,
        params=flatten(config.shown()),
        tags=tags,
        artifacts=artifacts,
        run_id=known.get("run_id"),
    )
    remember_run(run, wanted)  # before it is opened: a crash in between must not open a second one
    opened = try_open_run(wanted)
    remember_run(run, opened)
    return opened
