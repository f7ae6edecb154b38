"""What a sweep was begun with, so that it goes on with nothing else."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import Config
from pipelines.experiments.space import Space
from pipelines.tracking.tracker import flatten
from pipelines.train.driver.prepare import changes_freely
from unigeoseg.errors import UserError

if TYPE_CHECKING:
    from pipelines.experiments.sweep import SweepSettings

#: In the sweep's folder.
BEGUN = "begun.json"
_SIDE_BY_SIDE = "settings.concurrent"
_DATASET = "dataset"
_LOG = logging.getLogger(__name__)


def described(config: Config, space: Space, settings: "SweepSettings") -> dict[str, str]:
    """Everything that decides a sweep's trials beside its store, as dotted keys."""
    drawn = {key: f"{name} {json.dumps(list(args))}" for key, (name, args) in space.draws.items()}
    flat = flatten({"preset": config.plain(), "settings": asdict(settings)})
    ranked = {"space metric": space.metric, "space mode": space.mode}
    found = {**flat, **ranked, **{f"space {key}": text for key, text in drawn.items()}}
    return {key: text for key, text in found.items() if not _is_free(key)}


def _is_free(key: str) -> bool:
    """Whether a key may differ: a resumed run may change it too, and it decides no number of the table."""
    kind, _, name = key.partition(".")
    if kind == "preset":
        return changes_freely(name) and not name.startswith("evaluation.")
    return key == _SIDE_BY_SIDE


def write_begun(folder: Path, facts: Mapping[str, str], dataset: str) -> None:
    """Writes it down, before the first trial."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{BEGUN}.partial"
    partial.write_text(json.dumps({**facts, _DATASET: dataset}, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / BEGUN)


def check_begun(folder: Path, facts: Mapping[str, str], dataset: str | None) -> None:
    """Refuses to go on with other settings or another store: one table, and one best, would mix both.

    Args:
        folder: of the sweep.
        facts: of :func:`described`, as they are now.
        dataset: fingerprint of the store; ``None`` where it is not known yet.

    Raises:
        UserError: names what differs, with both values.
    """
    try:
        before: dict[str, Any] = json.loads((folder / BEGUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        _LOG.warning(
            "%s does not say what the sweep was begun with (an earlier version began it): it goes on, and "
            "nobody has checked that preset, space and store are the same",
            folder,
        )
        return
    except ValueError as error:
        raise UserError(
            f"{folder / BEGUN} is damaged ({error}): begin a new sweep with another --out"
        ) from error
    now = {**facts, _DATASET: before.get(_DATASET) if dataset is None else dataset}
    differing = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if differing:
        lines = [f"  {key}: {before.get(key, 'absent')} -> {now.get(key, 'absent')}" for key in differing]
        raise UserError(
            f"the sweep in {folder} was begun with others; give the same preset, space, options and store to "
            "go on with it, or another --out to begin a new one. Differing:\n" + "\n".join(lines)
        )
