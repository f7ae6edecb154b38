"""What the user watches: warnings that say what to do, and the final summary, from real metrics rows."""

import json

import pytest

from pipelines.tracking.metric_names import flat_metrics
from pipelines.train.engine.step import StepResult, StepSeconds
from pipelines.train.loop.advice import WINDOW, Advice, Totals, in_words
from pipelines.train.loop.metrics import RankReport, Window, memory_now, memory_shares, metrics_row
from pipelines.train.loop.progress import describe

EVEN = {"interactive": 0.5, "referring": 0.25, "reasoning": 0.25}


def _row(step, wait=0.05, counts=(4, 2, 2), share=0.5, loss=2.0, memory=None, watched=None):
    """A row as the recorder makes it, of a step of one second, seen by two ranks."""
    names = ("interactive", "referring", "reasoning")
    result = StepResult(
        step=step,
        loss=loss,
        parts={"mask_bce": loss},
        task_sums={name: 2.0 * n for name, n in zip(names, counts, strict=True)},
        task_counts=dict(zip(names, counts, strict=True)),
        watched=watched or {"empty": dict.fromkeys(names, 0.0), "full": dict.fromkeys(names, 0.0)},
        lr=1e-3,
        grad_norm=loss,
        grad_norms={},
        images=4,
        tokens=80,
        seconds=StepSeconds(wait, 0.3, 0.4, 0.3 - wait),
    )
    window = Window()
    window.add(result, wall=1.0, warm=True)
    reports = [RankReport(memory=memory or memory_now(), memory_share={"host": h}) for h in (0.1, share)]
    for report in reports:
        report.add(result.seconds)
    facts = {"position": 8 * step, "epoch": 0.1, "progress": 0.2, "samples_seen": 8 * step}
    more = {"quarantined": 0, "skipped_steps": 0, "target_shares": EVEN}
    return metrics_row(result, window, reports, facts | more)


def _said(rows):
    said = []
    advice = Advice(said.append)
    for row in rows:
        advice.row(row)
    return said


def test_a_healthy_run_is_not_warned_of():
    assert _said([_row(step) for step in range(100)]) == []


def test_waiting_for_data_is_said_once_with_what_to_do():
    (text,) = _said([_row(step, wait=0.28) for step in range(3 * WINDOW)])
    assert "waited for data 28% of the last 20 logged steps" in text and "data.prefetch_batches" in text
    assert _said([_row(step, wait=0.28) for step in range(WINDOW - 1)]) == []


def _started(wait=0.0):
    """Rows of a run whose first step waited nine seconds for its stream; each further one is of 20 steps."""
    first = _row(0)
    first["waits"] |= {"data": 9.0, "step": 10.0}
    return [first, *(_row(20 * n, wait=wait) | {"steps": 20} for n in range(1, WINDOW + 5))]


def test_the_start_of_a_stream_is_no_wait_for_data():
    assert _said(_started()) == []
    totals = Totals()
    for row in _started(wait=0.1):
        totals.row(row)
    steps = 20 * (WINDOW + 4)
    assert totals.plain()["wait_share"] == pytest.approx((9 + 0.1 * steps) / (10 + steps), abs=1e-4)


def test_a_row_counts_by_its_steps():
    rows = [_row(n, wait=0.9 if n % 2 else 0.0) | {"steps": 1 if n % 2 else 20} for n in range(WINDOW)]
    assert _said(rows) == []


def test_steps_after_a_restart_do_not_count_with_those_before():
    slow = [_row(step, wait=0.28) for step in range(WINDOW - 1)]
    assert _said([*slow, *slow[:5], *[_row(step) for step in range(WINDOW, 2 * WINDOW)]]) == []


def test_memory_near_the_limit_is_said_of_the_fullest_machine():
    (text,) = _said([_row(0, share=0.5), _row(1, share=0.93), _row(2, share=0.94)])
    assert "93% of its memory" in text and "train.micro_batch" in text


def test_shares_off_target_are_said():
    (text,) = _said([_row(step, counts=(5, 2, 1)) for step in range(WINDOW)])
    assert "interactive had 62% of the instructions" in text and "its target is 50%" in text
    assert "data.instructions_per_image=1" in text


def test_a_compiler_that_never_comes_to_an_end_is_said():
    rows = [_row(step) | {"compiled": {"graphs": 10 + step, "seconds": 3.0 * step}} for step in range(WINDOW)]
    (text,) = _said(rows)
    assert "19 more graphs" in text and "data.length_multiple=32" in text
    settled = [
        _row(step) | {"compiled": {"graphs": min(8, 2 * step), "seconds": 3.0}} for step in range(WINDOW)
    ]
    assert _said(settled) == []


def test_shares_of_this_machine_are_shares():
    found = memory_shares()
    assert 0 < found["host"] < 1


def test_the_line_shows_memory_and_a_step_that_was_left_out():
    memory = {"host": 1536.0, "allocated": 3072.0}
    assert describe(_row(0, memory=memory)).endswith("wait 5%, memory 1.5 GiB, GPU 3.0 GiB")
    row = _row(0, loss=float("nan"))
    assert row["loss"] is None and row["task_losses"]["referring"] is None and row["shares"] == EVEN
    assert "left out" in describe(row) and json.dumps(row, allow_nan=False)


def test_the_final_summary_has_what_the_rows_had():
    totals = Totals()
    for step, host in enumerate((1024.0, 2048.0, 1024.0)):
        totals.row(_row(step, wait=0.1, memory={"host": host}))
    assert totals.first is not None
    training = totals.plain() | {"first_step_seconds": 4.2}
    assert training["samples_per_s"] == 8.0 and training["wait_share"] == pytest.approx(0.1)
    assert training["memory_mib"] == {"host": 2048}
    text = in_words(
        {
            "steps": 3,
            "samples_seen": 24,
            "train_seconds": 63.4,
            "skipped_steps": 2,
            "mlflow_unsent": 0,
            "training": training,
        }
    )
    assert text == (
        "3 steps, 24 samples in 1 min 3 s, 8.0 samples/s, first step after 4 s, waiting for data 10%, "
        "peak memory 2.0 GiB\n"
        "2 steps left out (diagnostics/)"
    )


def test_absent_targets_count_apart():
    names = ("interactive", "referring", "reasoning")
    watched = {
        "empty": {"interactive": 1.0, "referring": 2.0, "reasoning": 0.0},
        "full": dict.fromkeys(names, 1.0),
        "soft_dice": {"interactive": 2.0, "referring": 1.5, "reasoning": 0.0},
        "absent": {"interactive": 0.0, "referring": 5.0, "reasoning": 4.0},
        "false_alarms": {"interactive": 0.0, "referring": 2.0, "reasoning": 3.0},
    }
    row = _row(3, counts=(4, 8, 4), watched=watched)
    assert row["empty"] == {"interactive": 0.25, "referring": pytest.approx(2 / 3), "reasoning": None}
    assert row["full"] == {"interactive": 0.25, "referring": 0.125, "reasoning": 0.25}
    assert row["soft_dice"] == {"interactive": 0.5, "referring": 0.5, "reasoning": None}
    assert row["false_alarms"] == {"interactive": None, "referring": 0.4, "reasoning": 0.75}
    assert flat_metrics(row | {"val": {}})["masks/false_alarms/reasoning"] == 0.75
    assert "false_alarms" not in _row(3)  # rows of other stores are as they were
