"""Warnings about a run that does not learn, from rows of metrics."""

import pytest

from pipelines.runs.learning import Learning, result_warnings


def _row(step, progress=0.1, **more):
    return {"step": step, "progress": progress, **more}


def _said(rows):
    learning = Learning()
    return [text for row in rows for _, text in learning.row(row)]


@pytest.mark.parametrize(("what", "words"), [("empty", "have been empty"), ("full", "the whole picture")])
def test_masks_that_stay_alike_for_a_hundred_steps(what, words):
    rows = [_row(s, (s + 1) / 1000, **{what: {"referring": 0.98}}) for s in range(0, 110, 10)]
    assert not _said(rows[:-1])
    (text,) = _said(rows)
    assert (
        "98% of the referring masks" in text
        and words in text
        and "100 steps" in text
        and "model.loss" in text
    )


def test_one_row_with_masks_begins_the_count_anew():
    shares = [1.0] * 8 + [0.5] + [1.0] * 8
    assert not _said([_row(10 * i, 0.5, empty={"reasoning": share}) for i, share in enumerate(shares)])


def test_a_task_that_has_not_come_yet_is_not_counted():
    assert not _said([_row(10 * i, 0.5, empty={"reasoning": None}) for i in range(30)])


def test_a_long_run_is_given_a_fiftieth_of_its_steps():
    rows = [_row(s, (s + 1) / 50_000, empty={"referring": 1.0}) for s in range(0, 1010, 100)]
    assert not _said(rows[:-1])
    assert len(_said(rows)) == 1


def test_rows_that_are_replayed_do_not_count_twice():
    rows = [_row(s, (s + 1) / 1000, empty={"referring": 1.0}) for s in (0, 40, 80, 0, 40, 80)]
    assert not _said(rows)


def test_learnt_by_heart_and_nothing_learnt():
    gap = {"train_eval": {"referring": {"gIoU": 0.41}}, "val": {"referring": {"gIoU": 0.12}}}
    (text,) = _said([_row(99, 0.2, **gap)])
    assert "training 0.41, held-out 0.12" in text
    near = {"train_eval": {"referring": {"gIoU": 0.41}}, "val": {"referring": {"gIoU": 0.33}}}
    assert not _said([_row(99, 0.9, **near)])
    nothing = {"train_eval": {"interactive": {"gIoU": 0.01}}, "val": {"interactive": {"gIoU": 0.0}}}
    assert not _said([_row(99, 0.2, **nothing)])
    (text,) = _said([_row(99, 0.6, **nothing)])
    assert "gIoU of interactive is 0.01" in text and "60%" in text


def test_a_result_that_is_mostly_empty_is_warned_of():
    tasks = {"interactive": {"n": 20, "empty": 1.0}, "referring": {"n": 20, "empty": 0.1}}
    (text,) = result_warnings(tasks)
    assert text.startswith("100% of the 20 interactive predictions are empty")


def test_absent_targets_are_no_empty_results():
    tasks = {
        "referring": {"n": 20, "empty": 0.75, "targets": 8},
        "reasoning": {"n": 20, "empty": 0.2, "targets": 5},
    }
    (text,) = result_warnings(tasks)
    assert text.startswith("75% of the 8 referring predictions are empty")
