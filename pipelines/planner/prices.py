"""The price table: ours, or one's own in its place."""

from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.storage.yaml_text import load_yaml
from unigeoseg.errors import UserError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Machine(_Strict):
    """A machine type; one without a GPU has a price alone."""

    hour: float = Field(gt=0, description="US dollars")
    gpu: str | None = None
    gpus: int = 0
    gpu_gib: float = 0


class Storage(_Strict):
    """An object store's prices in US dollars."""

    get_per_1000: float
    put_per_1000: float
    gb_month: float
    egress_gb_region: float
    egress_gb_internet: float


class Prices(_Strict):
    """What machines and storage cost, and where that is known from.

    Attributes:
        date: of the prices.
        source: in words.
        spot: what a spot node costs, as a share of the list price.
    """

    date: str
    source: str
    spot: float = Field(gt=0, le=1)
    storage: Storage
    machines: dict[str, Machine]


def read_prices(path: Path | None) -> Prices:
    """The table in a file, or our own.

    Raises:
        UserError: the file cannot be read or is no such table.
    """
    place = path if path is not None else files("pipelines.planner") / "prices.yaml"
    try:
        return Prices.model_validate(load_yaml(place.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"--prices {path}: cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(
            f"--prices {path}: {where}: {first['msg']}; pipelines/planner/prices.yaml shows the form"
        ) from error
