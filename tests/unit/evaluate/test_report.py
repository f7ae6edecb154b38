"""History, pictures and the report of a run folder."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from pipelines.config import Config
from pipelines.evaluate.final import evaluate_run
from pipelines.evaluate.history import History, smooth
from pipelines.evaluate.report import write_report
from pipelines.evaluate.sheets import pick_rows
from unigeoseg.errors import UserError


def _row(step, loss=1.0):
    return {
        "step": step,
        "position": 4 * step,
        "loss": loss,
        "losses": {"mask_bce": 0.1, "mask_dice": 0.2, "language": 0.3},
        "task_losses": {"interactive": loss, "referring": None},
        "lr": 1e-3,
        "shares": {"interactive": 1.0, "referring": 0.0, "reasoning": 0.0},
        "target_shares": {"interactive": 0.9, "referring": 0.1, "reasoning": 0.0},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory, export, store):
    folder = tmp_path_factory.mktemp("runs") / "toy"
    shutil.copytree(export, folder / "export")
    config = Config(name="toy", seed=3, evaluation={"max_samples": 8})
    (folder / "config.yaml").write_text(yaml.safe_dump(config.plain()))
    rows = [json.dumps(_row(s, 10 - s)) for s in range(1, 9)]
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n" + '{"step": 9, "los')
    tasks = evaluate_run(folder, store, config, progress=False)
    return folder, tasks


def test_run_folder_holds_everything(run):
    folder, tasks = run
    assert set(tasks) == {"interactive", "referring", "reasoning"}
    assert json.loads((folder / "evaluation/measures.json").read_text()) == tasks
    wanted = {"n", "gIoU", "cIoU", "untrained_gIoU", "all_foreground_gIoU", "swap_own_gIoU", "swapped_gIoU"}
    for measures in tasks.values():
        assert wanted <= set(measures) and 0 < measures["n"] <= 8
    for name in ("loss", "shares", "iou", "yardsticks", *(f"samples-{t}" for t in tasks)):
        picture = cv2.imread(str(folder / f"plots/{name}.png"))
        assert picture is not None and picture.std() > 10, name


def test_report_shows_results_curves_and_sheets(run):
    folder, tasks = run
    (folder / "summary.json").write_text(json.dumps({"steps": 8, "train_seconds": 61.4, "world_size": 2}))
    page = Path(write_report(folder)).read_text()
    for task, measures in tasks.items():
        assert f"{measures['gIoU']:.3f}" in page
        assert f'src="plots/samples-{task}.png"' in page
    for text in ("world size", "<b>61</b>", 'src="plots/loss.png"', "metrics.jsonl", "max_samples: 8"):
        assert text in page, text
    assert "{{" not in page and "http" not in page


def test_report_of_a_run_that_still_trains(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(_row(5)) + "\n")
    page = Path(write_report(tmp_path)).read_text()
    assert "Not evaluated yet" in page and "plots/loss.png" in page


def test_text_of_the_run_is_escaped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(_row(5)) + "\n")
    (tmp_path / "config.yaml").write_text("name: <script>alert(1)</script>\n")
    assert "<script>" not in Path(write_report(tmp_path)).read_text()


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        write_report(tmp_path)


def test_history_keeps_the_last_row_of_a_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(json.dumps(_row(s, v)) for s, v in ((1, 5.0), (2, 4.0), (2, 3.0), (3, 2.0))))
    history = History(path)
    assert history.steps.tolist() == [1, 2, 3]
    assert history.series("loss").tolist() == [5, 3, 2]
    assert np.isnan(history.series("task_losses", "referring")).all()
    assert history.names("losses") == ["mask_bce", "mask_dice", "language"]
    assert len(History(tmp_path / "absent")) == 0


def test_smooth_starts_unbiased_and_skips_gaps():
    values = np.array([np.nan, 2.0, np.nan, 4.0])
    found = smooth(values, 2)
    assert np.isnan(found[0]) and found[1] == found[2] == 2.0
    assert found[3] == pytest.approx((0.5 * 2 + 4) / 1.5)


def test_picked_rows_are_distinct_and_named():
    picked = pick_rows(np.linspace(1, 0, 20), range(20), each=3)
    assert len({p for _, p in picked}) == len(picked) == 12
    assert [p for c, p in picked if c == "best"] == [0, 1, 2]
    assert [p for c, p in picked if c == "worst"] == [19, 18, 17]
    assert [p for c, p in picked if c == "median"] == [9, 10, 11]
    assert len(pick_rows([0.5, 0.4], [0, 0])) == 2 and pick_rows([], []) == []


def test_picked_rows_prefer_different_images():
    picked = pick_rows([0.9, 0.8, 0.7, 0.6, 0.5, 0.0], [0, 0, 1, 1, 2, 2], each=2)
    assert [p for c, p in picked if c == "best"] == [0, 2]
    assert len({p for _, p in picked}) == len(picked) == 6
