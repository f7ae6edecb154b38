"""Scores of presence, and the rule for "none": against plain loops, and through the commands."""

import json
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from jobs.cli import cli
from pipelines.evaluate.absent import absent_report, fitted
from pipelines.evaluate.presence import (
    SCORES,
    NoneRule,
    auc,
    crossed,
    fit_rule,
    in_words,
    presence_scores,
    read_rule,
    write_rule,
)
from pipelines.train.checkpoints.model_export import convert_model
from tests.built_store import synthetic_store
from tests.tiny_export import write_export
from unigeoseg.errors import UserError
from unigeoseg.tasks import ABSENT, COLLECTIVE


def test_scores_are_what_they_are_called():
    logits = np.random.default_rng(0).normal(0, 2, (40, 32)).astype(np.float32)
    p = [1 / (1 + np.exp(-float(v))) for v in logits.ravel()]
    found = dict(zip(SCORES, presence_scores(logits), strict=True))
    inside = [v for v in p if v > 0.5]
    assert found["mean"] == pytest.approx(sum(inside) / len(inside))
    assert found["peak"] == pytest.approx(max(p))
    assert found["top"] == pytest.approx(sum(sorted(p)[-5:]) / 5)  # 1280 / 256
    assert found["soft"] == pytest.approx(sum(v * v for v in p) / sum(p))
    above = dict(zip(SCORES, presence_scores(logits, 0.8), strict=True))
    inside = [v for v in p if v > 0.8]
    assert above["mean"] == pytest.approx(sum(inside) / len(inside)) and above["peak"] == found["peak"]
    assert not presence_scores(np.full((9, 9), -0.1, np.float32)).any()
    assert np.isfinite(presence_scores(np.full((9, 9), 900.0, np.float32))).all()


def samples(seed, n=60):
    rng = np.random.default_rng(seed)
    absent = rng.random(n) < 0.4
    scores = np.round(rng.random((n, 4)) * 0.6 + np.outer(~absent, [0.1, 0.3, 0.2, 0.0]), 2)
    return scores, absent


@pytest.mark.parametrize("seed", range(20))
def test_auc_and_limit_are_the_best_of_all(seed):
    scores, absent = samples(seed)
    for column in scores.T:
        pairs = [(p > a) + 0.5 * (p == a) for p in column[~absent] for a in column[absent]]
        assert auc(column, absent) == pytest.approx(np.mean(pairs))
    rule = fit_rule(scores, absent)
    best = max(range(4), key=lambda k: auc(scores[:, k], absent))
    assert rule.score == SCORES[best] and (rule.absent, rule.present) == (absent.sum(), (~absent).sum())
    column = scores[:, best]
    said = rule.none(scores)
    np.testing.assert_array_equal(said, column < rule.threshold)
    assert rule.false_alarms == pytest.approx((~said[absent]).mean())
    assert rule.misses == pytest.approx(said[~absent].mean())
    empty = (column[~absent] == 0).mean()
    limits = [1e-9, *np.unique(column[column > 0]), *(np.unique(column) + 1e-9)]
    missed = {limit: (column[~absent] < limit).mean() for limit in limits}
    tried = [(column[absent] >= v).mean() + miss for v, miss in missed.items() if miss - empty <= 0.1]
    assert rule.false_alarms + rule.misses == pytest.approx(min(tried))
    assert rule.misses - empty <= 0.1


def test_no_rule_without_both_kinds_and_halves_judge_each_other():
    scores, absent = samples(1)
    assert fit_rule(scores, np.zeros(60, bool)) is None and fit_rule(scores, np.ones(60, bool)) is None
    scenes = np.arange(60) // 3
    said = crossed(scores, absent, scenes)
    for half in (0, 1):
        here = scenes % 2 == half
        rule = fit_rule(scores[~here], absent[~here])
        np.testing.assert_array_equal(said[here], rule.none(scores[here]))
    assert crossed(scores, absent, np.zeros(60, int)) is None
    nothing = fit_rule(np.zeros((60, 4)), absent)  # every mask is empty: no alarm, and all is missed
    assert (nothing.false_alarms, nothing.misses) == (0, 1)


def table(scores, absent, silent, iou, task="referring"):
    names = [task] * len(absent) if isinstance(task, str) else task
    return pa.table(
        {
            "task": names,
            "truth_share": np.where(absent, 0.0, 0.1),
            "predicted_share": np.where(silent, 0.0, 0.2),
            "presence": scores.tolist(),
            "iou": iou,
        }
    )


def test_a_report_counts_alarms_and_misses_by_task_and_with_the_rule():
    scores, absent = samples(2)
    rng = np.random.default_rng(3)
    silent = rng.random(60) < 0.3
    scores[silent] = 0
    iou = np.where(absent, silent.astype(float), np.where(silent, 0.0, rng.random(60)))
    task = ["referring", "reasoning", "interactive"] * 20
    found = absent_report(table(scores, absent, silent, iou, task), np.arange(60), NoneRule("top", 0.5))
    keep = np.array([t != "interactive" for t in task])
    a, s, i = absent[keep], silent[keep], iou[keep]
    assert (found["absent"], found["present"]) == (a.sum(), (~a).sum())
    assert found["false_alarms"] == pytest.approx((~s)[a].mean())
    assert found["misses"] == pytest.approx(s[~a].mean())
    assert set(found["tasks"]) == {"referring", "reasoning"} and set(found["auc"]) == set(SCORES)
    none = s | (scores[keep][:, 2] < 0.5)
    rule = found["rule"]
    assert rule["false_alarms"] == pytest.approx((~none)[a].mean())
    assert rule["misses"] == pytest.approx(none[~a].mean())
    want = np.where(none, a, i)
    for name, value in rule["gIoU"].items():
        assert value == pytest.approx(want[[t == name for t in np.array(task)[keep]]].mean())
    assert "absent targets got a mask" in in_words(found) and "none.json" in in_words(found)
    json.dumps(found)
    assert absent_report(table(scores, absent & False, silent, iou, task), np.arange(60)) == {}
    assert absent_report(table(scores, absent, silent, iou, "interactive"), np.arange(60)) == {}
    assert in_words({}) == ""
    rule = fitted(table(scores, absent, silent, iou, task), "stores/x", "val")
    assert (rule.data, rule.split, rule.absent) == ("stores/x", "val", a.sum())


def test_a_rule_is_written_and_read_and_a_damaged_one_is_named(tmp_path):
    assert read_rule(str(tmp_path)) is None
    rule = NoneRule("soft", 0.625, 0.1, 0.2, 10, 30, "stores/x", "val")
    assert write_rule(str(tmp_path), rule) == f"{tmp_path}/none.json"
    assert read_rule(str(tmp_path)) == rule
    for text, words in (
        ("{", "damaged"),
        ('{"score": "soft"}', "damaged"),
        ('{"score": "objectness", "threshold": 0.5}', "'objectness'"),
        ('{"score": "soft", "threshold": 7}', "7"),
    ):
        (tmp_path / "none.json").write_text(text)
        with pytest.raises(UserError, match=words) as error:
            read_rule(str(tmp_path))
        assert "--fit-none" in str(error.value) and "none.json" in str(error.value)


@pytest.fixture(scope="module")
def absent_store(tmp_path_factory):
    instruct = {"collective": 0.5, "absent": 1.0, "diversity_quantile": 0.0}
    out = tmp_path_factory.mktemp("presence") / "store"
    return str(synthetic_store(out, 10, split={"val": 1.0}, instruct=instruct))


@pytest.fixture
def own_export(export, tmp_path):
    return shutil.copytree(export, tmp_path / "export")


def test_evaluation_tells_absent_targets_apart_and_fits_the_rule(absent_store, own_export, tmp_path):
    arguments = ["evaluate", "--model", str(own_export), "--data", absent_store, "--no-plots", "--json"]
    plain = CliRunner().invoke(cli, arguments)
    assert plain.exit_code == 0, plain.output
    before = json.loads(plain.stdout)
    fit = CliRunner().invoke(cli, [*arguments, "--fit-none", "--out", str(tmp_path / "out")])
    assert fit.exit_code == 0, fit.output
    after = json.loads(fit.stdout)
    assert (
        after["tasks"] == before["tasks"] and after["overall"] == before["overall"]
    )  # the headline is as it was
    rows = pq.read_table(tmp_path / "out" / "per_sample.parquet").to_pylist()
    absent = [r for r in rows if r["subtask"] == ABSENT]
    present = [r for r in rows if r["subtask"] != ABSENT and r["task"] != "interactive"]
    assert absent and all(r["iou"] == float(r["predicted_share"] == 0) for r in absent)
    none = after["none"]
    assert (none["absent"], none["present"]) == (len(absent), len(present))
    assert none["false_alarms"] == pytest.approx(np.mean([r["predicted_share"] > 0 for r in absent]))
    assert none["misses"] == pytest.approx(np.mean([r["predicted_share"] == 0 for r in present]))
    collective = [r["iou"] for r in rows if r["subtask"] == COLLECTIVE]
    assert after["subtasks"][COLLECTIVE]["gIoU"] == pytest.approx(np.mean(collective))
    assert after["subtasks"][ABSENT]["targets"] == 0
    for task in ("referring", "reasoning"):
        there = [r for r in rows if r["task"] == task and r["truth_share"] > 0]
        assert after["tasks"][task]["targets"] == len(there)
        assert after["tasks"][task]["empty"] == pytest.approx(
            np.mean([r["predicted_share"] == 0 for r in there])
        )
    rule = read_rule(str(own_export))
    assert none["fitted"]["threshold"] == rule.threshold and rule.absent == len(absent)
    assert "absent targets got a mask" in (tmp_path / "out" / "evaluation.md").read_text()
    again = json.loads(CliRunner().invoke(cli, arguments).stdout)
    assert "none.json" in again["none"]["rule"]["says"] and again["tasks"] == before["tasks"]
    assert again["none"]["rule"]["false_alarms"] <= rule.false_alarms + 1e-9


def test_fitting_without_absent_targets_is_refused_before_the_work(store, own_export):
    arguments = ["evaluate", "--model", str(own_export), "--data", store, "--fit-none"]
    found = CliRunner().invoke(cli, arguments)
    assert isinstance(found.exception, UserError) and "instruct.absent" in str(found.exception)


def test_predict_says_that_there_is_none(own_export, tmp_path):
    picture = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)).save(picture)

    def ask(*more, prompt=("--text", "the block")):
        arguments = ["predict", "--model", own_export, "--image", picture, *prompt, "--out", tmp_path / "o"]
        return CliRunner().invoke(cli, [*map(str, arguments), *more, "--json"])

    free = json.loads(ask().stdout)
    assert free["none"] == (free["score"] == 0) and "presence" not in free
    found = ask("--none", "0.5")
    assert isinstance(found.exception, UserError) and "--fit-none" in str(found.exception)
    write_rule(str(own_export), NoneRule("peak", 0.0))
    low = json.loads(ask().stdout)
    assert low["mask"] == free["mask"] and low["none_below"] == 0 and low["presence_score"] == "peak"
    write_rule(str(own_export), NoneRule("peak", 1.5))
    none = json.loads(ask().stdout)
    assert none["none"] and none["score"] == 0 and none["presence"] == low["presence"]
    assert not cv2.imread(str(tmp_path / "o" / "mask.png")).any()
    assert json.loads(ask("--none", "off").stdout)["mask"] == free["mask"]
    assert json.loads(ask("--none", "0").stdout)["mask"] == free["mask"]
    box = json.loads(ask(prompt=("--box", "0.1,0.2,0.5,0.6")).stdout)
    assert "presence" not in box  # a box means what is there
    for text in ("maybe", "2", "-1"):
        found = ask("--none", text)
        assert isinstance(found.exception, UserError) and "for example --none 0.8" in str(found.exception)


def test_a_model_that_is_written_anew_keeps_its_rule(tmp_path):
    export = write_export(tmp_path / "export")
    rule = NoneRule("top", 0.25, 0.1, 0.05, 40, 60, "a store", "val")
    write_rule(str(export), rule)
    convert_model(export, "unigeoseg", tmp_path / "out")
    assert read_rule(str(tmp_path / "out")) == rule
