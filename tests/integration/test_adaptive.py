"""Training whose shares follow learning progress: recorded, resumed, and replayed to the same order."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.tiny_store import write_store
from tests.train_runs import finish, start

pytestmark = pytest.mark.integration
STEPS, SEGMENT = 14, 5
OPTIONS = {
    "train.steps": STEPS,
    "train.lr": 0.01,  # losses fall at once, at different rates
    "checkpoint.every": 6,  # within a segment: half of its losses are in the checkpoint
    "pts.schedule": "adaptive",
    "pts.adaptive": {"segment_steps": SEGMENT, "smoothing": 0.0, "high": 3.0, "low": 0.1},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def run(tmp_path_factory, store):
    folder = tmp_path_factory.mktemp("adaptive") / "run"
    finish(start("plain", folder, store, **OPTIONS))
    return folder


def test_shares_are_chosen_and_recorded(run):
    record = yaml.safe_load((run / "replay.yaml").read_text())["pts"]["record"]
    assert [sum(s) for s in record] == [4 * SEGMENT, 4 * SEGMENT, 4 * (STEPS - 2 * SEGMENT)]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    targets = [[round(share, 6) for share in row["target_shares"].values()] for row in rows]
    assert targets[:SEGMENT] == [targets[0]] * SEGMENT
    assert targets[SEGMENT] != targets[0], "the second segment has shares of its own"
    state = json.loads((run / "checkpoints/step-00000012/state.json").read_text())
    assert state["adaptive"]["segments"] == record


def test_a_resumed_run_makes_the_same_choices(run, store, tmp_path):
    folder = tmp_path / "run"
    finish(start("plain", folder, store, **OPTIONS))
    for later in (12, STEPS):
        (folder / f"checkpoints/step-{later:08d}/COMMITTED").unlink()
    finish(start("plain", folder, store, **OPTIONS, resume=True))
    assert (folder / "replay.yaml").read_text() == (run / "replay.yaml").read_text()
    assert _ledger(folder) == _ledger(run)
    assert _weights(folder) == _weights(run)


@pytest.mark.slow
def test_two_ray_workers_replay_it(run, store, tmp_path):
    record = yaml.safe_load((run / "replay.yaml").read_text())["pts"]["record"]
    options = {**OPTIONS, "pts.schedule": "recorded", "pts.record": record, "scale.workers": 2}
    finish(start("ray", tmp_path / "run", store, **options))
    assert _ledger(tmp_path / "run") == _ledger(run)


@pytest.mark.slow
def test_two_ray_workers_choose_on_their_way(run, store, tmp_path):
    finish(start("ray", tmp_path / "run", store, **OPTIONS, **{"scale.workers": 2}))
    assert _ledger(tmp_path / "run") == _ledger(run)


def _ledger(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]


def _weights(run: Path) -> dict[str, bytes]:
    found = load_file(str(run / "export/model.safetensors"))
    return {name: value.contiguous().numpy().tobytes() for name, value in found.items()}
