"""The paper's ablation tables as declared grids: rows, what each changes, and the paper's own figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipelines.config import Config, with_values
from unigeoseg.errors import UserError

_TABLES = Path(__file__).with_name("tables.yaml")


@dataclass(frozen=True)
class Cell:
    """A row of a table.

    Attributes:
        name: as the table shows it.
        values: what it changes in the preset, nested.
        paper: the paper's gIoU in percent by task; empty where it is not known.
        paper_delta: the paper's differences to the baseline in percent, where only those are known.
    """

    name: str
    values: Mapping[str, Any]
    paper: Mapping[str, float] = field(default_factory=dict)
    paper_delta: Mapping[str, float] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The name as part of a folder's name."""
        return "".join(c if c.isalnum() or c in ".-" else "-" for c in self.name).strip("-")


@dataclass(frozen=True)
class Grid:
    """A table: its rows in order, one of which the others are compared with."""

    table: int
    title: str
    note: str
    baseline: str
    cells: tuple[Cell, ...]

    def delta_of_paper(self, cell: Cell) -> dict[str, float]:
        """The paper's difference of a row to the baseline, percentage points by task, where it is known."""
        base = next(c for c in self.cells if c.name == self.baseline)
        known = {t: round(v - base.paper[t], 2) for t, v in cell.paper.items() if t in base.paper}
        return known or dict(cell.paper_delta)


def table_numbers() -> list[int]:
    """The tables that are declared."""
    return sorted(_read())


def load_grid(table: int, languages: Mapping[str, str] | None = None) -> Grid:
    """A declared table.

    Args:
        table: its number in the paper.
        languages: more rows for Table 13, name to the folder of a Hugging Face causal language model.

    Raises:
        UserError: no such table; languages for another one, or none for Table 13.
    """
    declared = _read()
    if table not in declared:
        names = ", ".join(f"{n} ({declared[n]['title'].lower()})" for n in sorted(declared))
        raise UserError(f"--table {table}: the declared tables are {names}")
    entry = declared[table]
    cells = [
        Cell(str(name), row.get("set", {}), row.get("paper", {}), row.get("paper_delta", {}))
        for name, row in entry["cells"].items()
    ]
    if languages and table != 13:
        raise UserError(f"--language belongs to --table 13, not to table {table}; leave it out")
    if table == 13:
        if not languages:
            raise UserError(
                "--table 13 swaps the language model: give at least one as --language NAME=FOLDER, a folder "
                "of a Hugging Face causal language model, such as --language deepseek7b=/models/deepseek-7b"
            )
        cells += [Cell(name, {"model": {"language": {"path": path}}}) for name, path in languages.items()]
    return Grid(table, entry["title"], entry["note"], entry["baseline"], tuple(cells))


def cell_config(config: Config, cell: Cell, seed: int) -> Config:
    """The preset as this row and seed have it."""
    return with_values(config, {**cell.values, "seed": seed}, f"row {cell.name}")


def _read() -> dict[int, Any]:
    declared: dict[int, Any] = yaml.safe_load(_TABLES.read_text(encoding="utf-8"))
    return declared
