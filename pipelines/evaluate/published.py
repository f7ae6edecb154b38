"""Published results beside which an evaluation stands.

``published.yaml`` holds what could be read. The result tables of the paper (2 to 5) could not, only a summary
with some of their figures; the file names the rest as missing instead of guessing. ``--published FILE`` adds
rows of the same form, for somebody who has the paper at hand.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.storage.yaml_text import load_yaml
from unigeoseg.errors import UserError


class PublishedRow(BaseModel):
    """One published result.

    Attributes:
        layout: benchmark, by its layout's name.
        split: of the benchmark; ``None`` for any.
        task: of the benchmark; ``None`` for all its samples.
        method: whose result.
        metrics: gIoU, cIoU and Pr@ as shares in [0, 1].
        source: where it stands.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: str
    split: str | None = None
    task: str | None = None
    method: str
    metrics: dict[str, float] = Field(min_length=1)
    source: str


class Published(BaseModel):
    """The content of a file of published results; ``missing`` names tables that could not be had."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    citation: str = ""
    rows: list[PublishedRow] = []
    missing: list[str] = []


@cache
def own_rows() -> Published:
    """What the package holds."""
    return read_published(Path(__file__).with_name("published.yaml"))


def read_published(path: Path) -> Published:
    """Reads a file of published results.

    Raises:
        UserError: missing, no YAML, or rows of another form; a metric outside [0, 1] is named.
    """
    try:
        found = Published.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--published {path} cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise UserError(f"--published {path}: {lines}; see pipelines/evaluate/published.yaml") from error
    for number, row in enumerate(found.rows):
        wrong = {k: v for k, v in row.metrics.items() if not 0 <= v <= 1}
        if wrong:
            raise UserError(
                f"--published {path}: rows.{number}: {wrong} is no share in [0, 1]: divide percent by 100"
            )
    return found


def beside(
    result: Mapping[str, Any], ids: list[str], own: Mapping[str, float], file: str | None = None
) -> dict[str, Any]:
    """The ``published`` part of an evaluation: rows that belong beside it, and what could not be had.

    Args:
        result: an evaluation's result.
        ids: its samples.
        own: what the benchmark's authors give for their own method, by sample id; its mean over ``ids``
            becomes a row.
        file: more rows.
    """
    layout = result["layout"]
    tables = [own_rows(), *([read_published(Path(file))] if file else [])]
    rows = [
        row.model_dump()
        for table in tables
        for row in table.rows
        if row.layout == layout and row.split in (None, result["split"])
    ]
    values = [own[name] for name in ids if name in own]
    if values:
        rows.append(
            PublishedRow(
                layout=layout,
                split=result["split"],
                method="authors of the benchmark's page, their own method",
                metrics={"gIoU": round(float(np.mean(values)), 6)},
                source=f"the benchmark's own list, mean over {len(values)} samples",
            ).model_dump()
        )
    missing = own_rows().missing if layout else []
    return {"citation": own_rows().citation, "rows": rows, "missing": missing}
