"""From a preset and ``--set`` overrides to a validated configuration.

A preset is a YAML file of the tree in :mod:`pipelines.config`. It may name another one with ``extends``; its
own keys then win, section by section.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from jobs.explain import explain, nearest
from pipelines.config import Config, merge
from pipelines.config.building import BuildConfig
from pipelines.storage.secrets import hide_all
from pipelines.storage.yaml_text import dump_yaml, load_yaml
from unigeoseg.errors import UserError

PRESETS = Path(__file__).parent / "presets"
_Model = TypeVar("_Model", bound=BaseModel)


def preset_names() -> list[str]:
    """Names of the presets that come with the project."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_config(preset: str | Path, sets: Sequence[str] = ()) -> Config:
    """Read a preset, apply overrides, validate.

    Args:
        preset: name of a file in ``jobs/presets``, or the path of a YAML file (a run's ``config.yaml`` too).
        sets: overrides ``a.b=value``; values are YAML.

    Raises:
        UserError: unknown preset or key, or values that do not fit, each with its dotted path and the remedy.
    """
    values = merge(read_preset(preset), parse_sets(sets))
    return _validate(Config, values, _where(preset, sets))


def override(config: Config, sets: Sequence[str]) -> Config:
    """A configuration with ``--set`` overrides.

    Raises:
        UserError: as :func:`load_config`.
    """
    return _validate(Config, merge(config.plain(), parse_sets(sets)), _where(None, sets)) if sets else config


def load_build_config(preset: str | Path | None, sets: Sequence[str] = ()) -> BuildConfig:
    """The build section alone, as ``data build`` needs it.

    Args:
        preset: preset whose ``build`` section is the base; None takes the defaults.
        sets: overrides relative to the section, such as ``tile.size=256``.

    Raises:
        UserError: as :func:`load_config`.
    """
    base: dict[str, Any] = (read_preset(preset).get("build") or {}) if preset else {}
    return _validate(BuildConfig, merge(base, parse_sets(sets)), _where(preset, sets))


def print_config(config: BaseModel) -> str:
    """The effective configuration as YAML, in the order of the tree."""
    return dump_yaml(hide_all(config.model_dump(mode="json")))


def parse_sets(sets: Sequence[str]) -> dict[str, Any]:
    """Turn ``["train.lr=3e-4", "scale.workers=2"]`` into a nested dictionary; later ones win.

    Raises:
        UserError: an override that is not ``dotted.key=value`` or whose value is not YAML.
    """
    result: dict[str, Any] = {}
    for text in sets:
        key, sign, raw = text.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not sign or not all(parts):
            raise UserError(f"--set {text}: expected dotted.key=value, for example --set train.lr=3e-4")
        nested: Any = _parse_value(text, raw)
        for part in reversed(parts):
            nested = {part: nested}
        result = merge(result, nested)
    return result


def read_preset(preset: str | Path, _seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A preset's values with those it extends below; ``name`` defaults to the file's stem.

    Raises:
        UserError: there is no such preset, it is not a YAML mapping, or ``extends`` goes in a circle.
    """
    path = _locate(preset, _seen[-1].parent if _seen else None)
    if path in _seen:
        circle = " → ".join(item.stem for item in (*_seen, path))
        raise UserError(f"preset {path.stem} extends itself ({circle}); remove one `extends`")
    values = _read_yaml(path)
    parent = values.pop("extends", None)
    values.setdefault("name", path.stem)
    return merge(read_preset(str(parent), (*_seen, path)), values) if parent is not None else values


def _locate(preset: str | Path, beside: Path | None) -> Path:
    text = str(preset)
    if "/" in text or text.endswith((".yaml", ".yml")):
        candidates = [Path(text).expanduser()] + ([beside / text] if beside else [])
    else:
        candidates = [PRESETS / f"{text}.yaml"] + ([beside / f"{text}.yaml"] if beside else [])
    for path in candidates:
        if path.is_file():
            return path.resolve()
    names = preset_names()
    close = get_close_matches(Path(text).stem, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(f"no preset {text}: {hint}There are {', '.join(names)}; or give the path of a YAML file")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read preset {path}: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"preset {path} is not valid YAML: {_one_line(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"preset {path} must be a mapping of sections (train:, model:, …)")
    return values


def _parse_value(text: str, raw: str) -> Any:
    try:
        return load_yaml(raw)
    except yaml.YAMLError as error:
        raise UserError(f"--set {text}: the value is not valid YAML: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _where(preset: str | Path | None, sets: Sequence[str]) -> str:
    parts = [f"preset {preset}"] if preset else []
    parts += [f"--set {text}" for text in sets]
    return ", ".join(parts) or "the defaults"


def _validate(model: type[_Model], values: dict[str, Any], where: str) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, model, where)) from error


__all__ = ["PRESETS", "load_build_config", "load_config", "merge", "nearest", "parse_sets", "preset_names"]
