"""A sweep's search space, from YAML: keys of the configuration and how Ray Tune draws them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from ray import tune

from pipelines.config import Config, with_values
from pipelines.experiments.trial import nest
from pipelines.storage.yaml_text import load_yaml
from unigeoseg.errors import UserError

#: Functions of ray.tune that draw a value; what an entry may name.
DRAWS = ("choice", "grid_search", "uniform", "quniform", "loguniform", "qloguniform", "randint", "lograndint")
#: Those whose one argument is the list itself.
_LISTS = ("choice", "grid_search")


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    metric: str = "val/gIoU"
    mode: str = "max"
    space: dict[str, dict[str, list[Any]]]


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        metric: what trials are ranked by, a name that a trial reports (``val/gIoU``, ``loss``, ...).
        mode: ``max`` or ``min``.
        draws: dotted key of the configuration to (function of Tune, arguments).
    """

    metric: str
    mode: str
    draws: Mapping[str, tuple[str, tuple[Any, ...]]]

    def for_tune(self) -> dict[str, Any]:
        """As ``param_space`` of a Tuner."""
        return {
            key: getattr(tune, name)(list(args)) if name in _LISTS else getattr(tune, name)(*args)
            for key, (name, args) in self.draws.items()
        }

    def count(self, samples: int) -> int:
        """Trials that ``samples`` draws make: each grid_search entry multiplies them."""
        grids = [len(args) for name, args in self.draws.values() if name == "grid_search"]
        return samples * math.prod(grids)

    def first_values(self) -> dict[str, Any]:
        """One value for each key (the first or lowest), to try whether the keys exist."""
        return {key: args[0] for key, (_, args) in self.draws.items()}


def load_space(path: Path, config: Config) -> Space:
    """Reads a search space and tries its keys on the preset.

    Raises:
        UserError: no such file, no YAML, an unknown way to draw, or a key or value that does not fit.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
        file = _File.model_validate(content)
    except OSError as error:
        raise UserError(f"cannot read the search space {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UserError(
            f"the search space {path} is not valid YAML: {' '.join(str(error).split())}"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"the search space {path}: {where}: {first['msg']}; expected metric, mode and space with entries "
            "such as train.lr: {loguniform: [1.0e-4, 1.0e-2]}"
        ) from error
    if file.mode not in ("max", "min"):
        raise UserError(f"the search space {path}: mode is {file.mode!r}; give max or min")
    if not file.space:
        raise UserError(f"the search space {path} is empty: give at least one key under space")
    draws = {key: _draw(path, key, entry) for key, entry in file.space.items()}
    space = Space(file.metric, file.mode, draws)
    with_values(config, nest(space.first_values()), f"the search space {path}")
    return space


def _draw(path: Path, key: str, entry: Mapping[str, list[Any]]) -> tuple[str, tuple[Any, ...]]:
    if len(entry) != 1 or next(iter(entry)) not in DRAWS or not next(iter(entry.values())):
        raise UserError(
            f"the search space {path}: {key}: expected one of {', '.join(DRAWS)} with its arguments, such as "
            "{choice: [1, 2]}, not " + str(dict(entry))
        )
    name, args = next(iter(entry.items()))
    return name, tuple(args)
