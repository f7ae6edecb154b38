"""Words for what pydantic refused: the dotted path, the value, the problem and the way out."""

import dataclasses
import re
from difflib import get_close_matches
from itertools import takewhile
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """One message for all problems of a configuration.

    Args:
        error: what validation raised.
        model: the model that was validated.
        where: the preset and overrides it came from, for the first line.
    """
    lines = [_line(item, model) for item in error.errors()]
    unique = list(dict.fromkeys(lines))
    if len(unique) == 1:
        return f"{unique[0]} (from {where})"
    return "\n  ".join([f"{len(unique)} problems in the configuration (from {where}):", *unique])


def nearest(name: str, names: list[str]) -> str | None:
    """The most similar of ``names``, or None when nothing comes near."""
    lowered = {item.lower(): item for item in names}
    close = get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return lowered[close[0]] if close else None


def _line(item: Any, model: type[BaseModel]) -> str:
    location = _reachable(tuple(item["loc"]), model)
    path = ".".join(str(part) for part in location)
    if item["type"] in _UNKNOWN:
        return _unknown(location, model)
    message: str = item["msg"].removeprefix("Value error, ")
    if not location:
        return message
    if item["type"] in {"missing", "missing_argument"}:
        missing = "an entry is missing" if isinstance(location[-1], int) else "missing"
        return f"{path}: {missing}{_remedy(location, model)}; set it with --set {_settable(location)}=VALUE"
    keys = list(_fields(_resolve(location, model)))
    if keys and item["type"] in {"dataclass_type", "model_type", "model_attributes_type"}:
        return f"{path}={item['input']!r}: this is a section; set a key of it, such as {path}.{keys[0]}=VALUE"
    words = f"{_choice(item)}{message[0].lower() + message[1:]}"
    return f"{path}={item['input']!r}: {words}{_remedy(location, model)}"


def _choice(item: Any) -> str:
    """The nearest of the words that a setting may have, as a question."""
    words = re.findall(r"'([^']*)'", item["ctx"]["expected"]) if item["type"] == "literal_error" else []
    close = nearest(item["input"], words) if isinstance(item["input"], str) else None
    return f"did you mean {close}? " if close else ""


def _reachable(location: tuple[Any, ...], model: type[BaseModel]) -> tuple[Any, ...]:
    """``location`` without the union branches that pydantic puts behind a field's name."""
    reached: list[Any] = []
    for i, part in enumerate(location):
        known = isinstance(part, int) or part in _fields(_resolve(tuple(reached), model))
        if (not known and i < len(location) - 1) or "[" in str(part):
            continue
        reached.append(part)
    return tuple(reached)


def _settable(location: tuple[Any, ...]) -> str:
    """The dotted path that ``--set`` takes: lists are set whole."""
    names = [str(part) for part in takewhile(lambda part: not isinstance(part, int), location)]
    return ".".join(names)


def _unknown(location: tuple[Any, ...], model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in location)
    prefix = ".".join(str(part) for part in location[:-1])
    names = list(_fields(_resolve(location[:-1], model)))
    close = nearest(str(location[-1]), names)
    if close is not None:
        return f"unknown key {path}; did you mean {prefix + '.' if prefix else ''}{close}?"
    elsewhere = nearest(str(location[-1]), list(places := _leaf_places(model)))
    hint = f"did you mean {places[elsewhere]}? " if elsewhere else ""
    return f"unknown key {path}; {hint}{prefix or 'The configuration'} has {', '.join(names)}"


def _remedy(location: tuple[Any, ...], model: type[BaseModel]) -> str:
    """The field's description and default, as far as the tree knows them."""
    field = _field(location, model)
    if field is None:
        return ""
    description, default = field
    parts = [description] if description else []
    parts += [f"default {default!r}"] if isinstance(default, str | int | float | tuple) else []
    return f" ({'; '.join(parts)})" if parts else ""


def _fields(kind: Any) -> dict[str, Any]:
    """Names of a section's fields with their annotations."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if dataclasses.is_dataclass(kind):
        return {field.name: field.type for field in dataclasses.fields(kind)}
    return {}


def _section(annotation: Any) -> Any:
    """The section inside an annotation such as ``BuildConfig | None`` or ``list[SharePhase]``."""
    if _fields(annotation):
        return annotation
    inner = (_section(arg) for arg in get_args(annotation))
    return next((item for item in inner if item is not None), None) if get_origin(annotation) else None


def _resolve(location: tuple[Any, ...], model: Any) -> Any:
    for part in location:
        if isinstance(part, int):
            continue
        model = _section(_fields(model).get(part))
    return model


def _field(location: tuple[Any, ...], model: type[BaseModel]) -> tuple[str | None, Any] | None:
    """Description and default of the innermost field that ``location`` reaches, or None."""
    for end in range(len(location), 0, -1):
        name, kind = location[end - 1], _resolve(location[: end - 1], model)
        if name not in _fields(kind):
            continue
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind.model_fields[name].description, kind.model_fields[name].default
        return None, next(field.default for field in dataclasses.fields(kind) if field.name == name)
    return None


def _leaf_places(model: Any, prefix: str = "") -> dict[str, str]:
    """Every field name of the tree with the dotted path of its first place."""
    places = {name: prefix + name for name in _fields(model)}
    for name, annotation in _fields(model).items():
        section = _section(annotation)
        if section is not None:
            for leaf, place in _leaf_places(section, f"{prefix}{name}.").items():
                places.setdefault(leaf, place)
    return places
