"""Numbers for Prometheus and the log format."""

import json
import logging
import re
from pathlib import Path

import pytest

from pipelines.tracking.gauges import METRICS, Goodput, numbers
from pipelines.train.loop.logs import RunLogs, at_step

ROOT = Path(__file__).parents[3]


def _row(step, seconds=2.0, data=0.5):
    return {
        "step": step, "progress": 0.5, "loss": 1.0, "lr": 1e-4, "grad_norm": 3.0, "quarantined": 0,
        "storage_retries": 0, "world_size": 2,
        "rates": {"samples_per_s": 8.0}, "waits": {"data": data, "step": seconds},
        "task_losses": {"interactive": 1.0, "referring": None}, "target_shares": {"interactive": 0.4},
        "shares": {"interactive": 0.5}, "memory": {"host": 900.0},
    }  # fmt: skip


def test_repeated_steps_waits_and_idle_time_lower_the_goodput():
    goodput = Goodput(began=0.0)
    assert goodput.after(_row(0), now=2.0) == pytest.approx(1.5 / 2)
    assert goodput.after(_row(3), now=8.0) == pytest.approx(4 * 1.5 / 8)
    # A worker was lost: steps 2 and 3 come again after a minute, and only step 4 is new.
    assert goodput.after(_row(2), now=68.0) == pytest.approx(4 * 1.5 / 68)
    assert goodput.after(_row(4), now=72.0) == pytest.approx(5 * 1.5 / 72)


def test_a_resumed_run_is_not_credited_with_the_steps_before():
    assert Goodput(began=0.0).after(_row(500), now=2.0) == pytest.approx(1.5 / 2)


def test_every_number_has_its_metric_and_labels():
    found = numbers(_row(7))
    assert {name for name, _, _ in found} <= set(METRICS)
    for name, labels, _ in found:
        assert tuple(labels) == METRICS[name][1]
    values = {(name, *labels.values()): value for name, labels, value in found}
    assert values[("step",)] == 8 and values[("wait_share",)] == 0.25
    assert values[("task_share", "interactive", "realised")] == 0.5
    assert ("task_loss", "referring") not in values and ("mfu",) not in values


def test_the_dashboard_asks_for_metrics_that_exist():
    dashboard = json.loads((ROOT / "cluster/observability/grafana_dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for text in asked for name in re.findall(r"ray_unigeoseg_(\w+)", text)}
    assert named <= set(METRICS)
    assert len(METRICS.keys() - named) <= 4, f"not on the dashboard: {METRICS.keys() - named}"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_a_line_tells_run_rank_and_step(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    logger = logging.getLogger("pipelines.train.somewhere")
    with RunLogs("first"):
        at_step(12)
        logger.info("reading %s", "x")
    logger.info("outside")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 2)[2] for line in lines if "rank" in line] == [
        "INFO run=first rank=3 step=12 pipelines.train.somewhere: reading x"
    ]
