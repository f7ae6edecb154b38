"""Looking at a store: statistics against counts of one's own, sheets, the page, the progress of a build."""

import io
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from jobs.cli import cli
from pipelines.build.progress import Steps
from pipelines.curate.table10 import paper, table10
from tests.built_store import synthetic_store
from tests.unit.build.test_store_tools import decoded, samples_of
from unigeoseg.errors import UserError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return synthetic_store(tmp_path_factory.mktemp("look") / "store", 8)


def run(*arguments):
    result = CliRunner().invoke(cli, ["data", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_statistics_are_what_counting_gives(store, tmp_path):
    found = json.loads(run("stats", store, "--out", tmp_path / "s", "--json"))
    samples = samples_of(store).values()
    assert found["samples"] == len(samples) and found["images"] == 8
    for task in ("interactive", "referring", "reasoning"):
        own = [s for s in samples if s["task"] == task]
        lengths = [len(s["instruction"].split()) for s in own]
        assert found["words"][task] == {str(n): lengths.count(n) for n in sorted(set(lengths))}
        assert sum(found["mask_share"][task]) == len(own)
        grid = np.zeros((24, 24), int)
        for sample in own:
            ys, xs = np.nonzero(decoded(sample))
            grid[int((ys.min() + ys.max() + 1) / 256 * 24), int((xs.min() + xs.max() + 1) / 256 * 24)] += 1
        assert found["centres"][task] == grid.tolist()
        rows = {row["name"]: row for row in found["table10"]}
        assert rows[f"mean words, {task}"]["store"] == pytest.approx(np.mean(lengths), abs=1e-3)
    assert found["resolution"] == [{"width": 128, "height": 128, "images": 8}]
    assert sum(n for row in found["counts"]["category"].values() for n in row.values()) == len(samples)
    assert len(found["files"]) == 7
    for file in found["files"]:
        pixels = np.asarray(Image.open(file).convert("RGB"))
        assert min(pixels.shape[:2]) > 100 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_table_10_has_the_papers_figures_and_no_others():
    shown = {row["name"]: row["paper"] for row in table10({})}
    words = {task: shown[f"mean words, {task}"] for task in ("referring", "interactive", "reasoning")}
    assert words == {"referring": "12.05", "interactive": "9.80", "reasoning": "23.93"}
    assert shown["categories"] == "117" and shown["mean mask share"] is None
    assert all(figure.source for figure in paper().figures.values())
    assert run("stats", "--help")


def test_sheets_for_each_task_and_source_and_for_a_choice(store, tmp_path):
    files = run("preview", store, "--out", tmp_path / "sheets", "--n", 6).split()
    names = [name.rpartition("/")[2] for name in files]
    assert names == [
        "task-interactive.png",
        "task-referring.png",
        "task-reasoning.png",
        "source-synthetic.png",
    ]
    one, again, other = (tmp_path / f"{n}.png" for n in "abc")
    for out, seed in ((one, 3), (again, 3), (other, 4)):
        run(
            "preview",
            store,
            "--out",
            out,
            "--task",
            "referring",
            "--source",
            "synthetic",
            "--seed",
            seed,
            "--n",
            4,
        )
    assert one.read_bytes() == again.read_bytes() != other.read_bytes()
    assert Image.open(io.BytesIO(one.read_bytes())).width > 1000
    with pytest.raises(UserError, match="no nowhere sample to show; its sources are synthetic"):
        run("preview", store, "--out", one, "--source", "nowhere")
    with pytest.raises(UserError, match="the report is a page"):
        run("report", store, "--out", tmp_path / "r.pdf")


def test_the_page_needs_no_other_file(store, tmp_path):
    run("report", store, "--out", tmp_path / "r.html", "--n", 4)
    page = (tmp_path / "r.html").read_text()
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 7 + 4
    assert not re.search(r'(src|href)="(?!data:)', page)
    for text in ("23.93", "synthetic", "low diversity", "Licences"):
        assert text in page


def test_progress_without_a_terminal_is_lines(capsys):
    now = [0.0]
    with Steps("mine tiles", "image", 40, clock=lambda: now[0]) as bar:
        for _ in range(4):
            now[0] += 3
            bar.update(10, "9 regions")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "mine tiles: 20/40 images  50%, 9 regions, 3.3 images/s, ETA 0:06",
        "mine tiles: 40/40 images 100%, 9 regions, 3.3 images/s",
    ]


def test_a_build_tells_its_steps_and_ends_with_the_table(tmp_path):
    out = CliRunner().invoke(
        cli, ["data", "build", "--source", "synthetic", "--out", str(tmp_path / "s"),
              "--set", "source.scenes=3", "--set", "workers=0"],
    )  # fmt: skip
    assert out.exit_code == 0, out.output
    assert re.search(r"synthetic tiles: 3/3 images 100%, 3 tiles, \d+ regions", out.stderr)
    assert "synthetic shards: " in out.stderr
    rows = pq.read_table(tmp_path / "s" / "index.parquet").num_rows
    assert re.search(rf"samples +{rows} +1\.1M", out.stdout)
    assert re.search(r"mean words, reasoning +[\d.-]+ +23\.93", out.stdout)
