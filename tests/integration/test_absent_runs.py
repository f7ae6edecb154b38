"""A run on a store with collective and absent samples: drawn, counted apart, "none" fitted at the end."""

import json

import pyarrow.parquet as pq
import pytest
import yaml

from tests.built_store import synthetic_store
from tests.train_runs import tiny_values
from tests.warm import run_warm
from unigeoseg.tasks import ABSENT, COLLECTIVE

pytestmark = pytest.mark.integration


def _train(folder, store, name, **overrides):
    values = {
        "evaluation.max_samples": 24,
        "train.steps": 4,
        "tokenizer.max_length": 512,
        "model.language.max_positions": 512,
    }
    preset = folder / f"{name}.yaml"
    preset.write_text(yaml.safe_dump(tiny_values(**values | overrides)))
    options = ["--preset", preset, "--store", store, "--run", folder / name, "--plain", "--json"]
    done = run_warm("jobs.cli", "train", *options, "--set", "scale.workers=1")
    assert done.returncode == 0, done.stderr
    lines = (folder / name / "ledger.jsonl").read_text().splitlines()
    drawn = [sample for line in lines for sample in json.loads(line)["sample_ids"]]
    rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return json.loads(done.stdout), drawn, rows


def test_absent_samples_are_their_tasks_samples_and_count_apart(tmp_path):
    instruct = {"collective": 0.5, "absent": 1.0, "diversity_quantile": 0.0}
    synthetic_store(tmp_path / "store", 10, split={"val": 0.4}, instruct=instruct)
    kinds = {
        r["sample_id"]: r["subtask"] for r in pq.read_table(tmp_path / "store/index.parquet").to_pylist()
    }
    summary, drawn, rows = _train(tmp_path, tmp_path / "store", "all")
    assert {ABSENT, COLLECTIVE} <= {kinds[name] for name in drawn}
    assert rows[-1]["quarantined"] == 0
    assert any("false_alarms" in row for row in rows)
    for row in rows:
        for share in row.get("false_alarms", {}).values():
            assert share is None or 0 <= share <= 1
    evaluation = json.loads((tmp_path / "all/evaluation/evaluation.json").read_text())
    assert evaluation["none"]["absent"] and set(evaluation["subtasks"]) >= {ABSENT, COLLECTIVE}
    rule = json.loads((tmp_path / "all/export/none.json").read_text())
    assert rule["absent"] == evaluation["none"]["absent"] and rule["split"] == "val"
    assert summary["tasks"]["referring"]["targets"] < summary["tasks"]["referring"]["n"]
    assert "absent targets got a mask" in (tmp_path / "all/report.html").read_text()
