"""The ablation tables: what each row changes, and their arithmetic against figures worked out by hand."""

import csv
import json
from dataclasses import dataclass

import pytest

from pipelines.config import Config
from pipelines.experiments.ablate import ablation_runs
from pipelines.experiments.grid import Cell, Grid, cell_config, load_grid, table_numbers
from pipelines.experiments.table import ablation_table, table_markdown, write_table
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

CONFIG = Config.model_validate({"name": "t", "seed": 5})


def test_the_paper_s_tables_are_there_and_every_row_is_a_valid_configuration():
    assert table_numbers() == [6, 7, 8, 9, 13]
    seen = {}
    for number in (6, 7, 8, 9):
        grid = load_grid(number)
        runs = ablation_runs(grid, CONFIG, 2)
        assert [r.seed for r in runs] == [5] * len(grid.cells) + [6] * len(grid.cells)
        assert len({r.name for r in runs}) == len(runs)
        seen[number] = [cell_config(CONFIG, cell, 5) for cell in grid.cells]
    assert [c.model.tate.branches for c in seen[7]] == ["none", "referring", "reasoning", "adaptive"]
    assert [c.model.lkm.slots for c in seen[6]] == [0, 0, 4, 4]
    assert [(c.model.lkm.slots, c.model.lkm.weight) for c in seen[8]] == [
        (n, weight) for n in (4, 8) for weight in (0.0, 0.1, 0.2, 0.3)
    ]
    assert [c.pts.schedule for c in seen[9]] == ["constant", "linear", "adaptive"]


def test_the_paper_s_differences_of_table_6():
    grid = load_grid(6)
    deltas = {cell.name: grid.delta_of_paper(cell) for cell in grid.cells}
    assert deltas["TATE"] == {"interactive": 2.10, "referring": 0.08, "reasoning": 2.76}
    assert deltas["TATE+LKM"] == {"interactive": 2.33, "referring": 1.75, "reasoning": 4.18}


def test_a_language_model_is_a_row_of_table_13_alone(tmp_path):
    grid = load_grid(13, {"other": str(tmp_path)})
    assert [cell.name for cell in grid.cells] == ["preset", "other"]
    assert cell_config(CONFIG, grid.cells[1], 0).model.language.path == str(tmp_path)
    with pytest.raises(UserError, match="--language NAME=FOLDER"):
        load_grid(13)
    with pytest.raises(UserError, match="belongs to --table 13"):
        load_grid(6, {"other": "x"})
    with pytest.raises(UserError, match=r"--table 5: the declared tables are 6 \(modules\)"):
        load_grid(5)
    with pytest.raises(UserError, match="--seeds 0"):
        ablation_runs(grid, CONFIG, 0)


@dataclass(frozen=True)
class _Run:
    name: str
    cell: Cell
    seed: int


def _summary(*shares):
    return {"tasks": {task: {"gIoU": share} for task, share in zip(TASKS, shares, strict=True)}}


@pytest.fixture
def result():
    base, better = (
        Cell("base", {}),
        Cell("better", {}, {}, {"interactive": 1.0, "referring": 2.0, "reasoning": 1.0}),
    )
    grid = Grid(99, "Of a test", "two rows", "base", (base, better))
    runs = [_Run(f"{cell.name}-{seed}", cell, seed) for seed in (0, 1, 2) for cell in grid.cells]
    found = {
        "base-0": _summary(0.10, 0.20, 0.5),
        "base-1": _summary(0.20, 0.20, 0.4),
        "base-2": _summary(0.30, 0.20, 0.3),
        "better-0": _summary(0.12, 0.10, 0.6),
        "better-1": _summary(0.22, 0.09, 0.2),
        "better-2": None,
    }
    return ablation_table(grid, found, runs, {"better-2": "ValueError: worn out"})


def test_means_spreads_and_paired_differences(result):
    base, better = (row["tasks"] for row in result["rows"])
    assert (base["interactive"]["mean"], base["interactive"]["sd"], base["interactive"]["n"]) == (20, 10, 3)
    assert base["interactive"]["delta"] is None
    # Paired by seed: seeds 0 and 1 only. Unpaired it would be 17 - 20.
    assert (better["interactive"]["delta"], better["interactive"]["delta_sd"]) == (2, 0)
    assert better["referring"]["delta"] == pytest.approx(-10.5)
    assert better["referring"]["delta_sd"] == pytest.approx(0.5**0.5, abs=1e-4)
    effects = {task: better[task]["effect"] for task in TASKS}
    # Referring: 10.5 against t(0.975, 1) = 12.71 times a standard error of 0.5; reasoning is all spread.
    assert effects == {"interactive": "seen", "referring": "opposite", "reasoning": "not seen"}
    assert result["unfinished"] == ["better-2"]


def test_one_seed_shows_no_effect(result):
    grid = Grid(99, "t", "n", "a", (Cell("a", {}), Cell("b", {}, {}, {"interactive": 1.0})))
    runs = [_Run(cell.name, cell, 0) for cell in grid.cells]
    table = ablation_table(grid, {"a": _summary(0.1, 0, 0), "b": _summary(0.9, 0, 0)}, runs, {})
    figures = table["rows"][1]["tasks"]["interactive"]
    assert (figures["delta"], figures["delta_sd"], figures["effect"]) == (80, None, None)


def test_the_files_say_the_same(result, tmp_path):
    paths = write_table(result, tmp_path)
    assert [p.name for p in paths] == ["table.json", "table.md", "table.csv", "table.png"]
    assert json.loads(paths[0].read_text()) == result
    with paths[2].open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["row"], r["task"]) for r in rows] == [(n, t) for n in ("base", "better") for t in TASKS]
    assert float(rows[3]["delta"]) == 2 and rows[3]["effect"] == "seen" and rows[0]["delta"] == ""
    text = table_markdown(result)
    assert "20.00 ± 10.00" in text and "| +2.00 ± 0.00 | +1.00 | seen |" in text
    assert "Not finished: better-2" in text and "Failed: better-2: ValueError: worn out" in text
    assert paths[3].read_bytes().startswith(b"\x89PNG")
