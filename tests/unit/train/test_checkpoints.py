"""Checkpoints beside training: what is written, what a failure leaves, what stays; on a tiny engine."""

import errno
import json
import threading
import time

import pytest
import torch
from torch import nn

from pipelines.config import CheckpointConfig
from pipelines.runs.folder import RunFolder
from pipelines.runs.manifest import checkpoint_name, committed_steps, newest_checkpoint, verify
from pipelines.storage.background import in_background
from pipelines.train.checkpoints import writer as module
from pipelines.train.checkpoints.frozen import content_hash, frozen_tensors, restore_frozen, write_frozen
from pipelines.train.checkpoints.restore import check_shapes
from pipelines.train.checkpoints.writer import CheckpointError, CheckpointWriter
from pipelines.train.engine.pieces import KINDS, Piece
from pipelines.train.engine.shards import ShardReader, layout_of, take_snapshot, write_shard
from tests.warm import run_warm
from unigeoseg.errors import UserError


class _OneRank:
    """What Checkpoints asks of an engine, with two parameters of known values."""

    rank, world = 0, 1

    def __init__(self):
        self.weights = {"a": torch.arange(6.0), "b": torch.full((5,), 2.0)}

    def own_pieces(self):
        return [
            Piece(
                name, (len(value),), 0, {k: value * (i + 1) for i, k in enumerate(KINDS)}, torch.tensor(3.0)
            )
            for name, value in self.weights.items()
        ]

    def tied_names(self):
        return {"also_a": "a"}


def _settings(**changes):
    return CheckpointConfig(**{"patience_s": 0, **changes})


def _saved(tmp_path, *steps, metrics=None, **changes):
    run = RunFolder(tmp_path / "run")
    checkpoints = CheckpointWriter(_OneRank(), run, _settings(**changes))
    for step in steps:
        checkpoints.save({"step": step, "metrics": {"loss": (metrics or {}).get(step, 0.0)}})
        report = checkpoints.finish()
        assert report.step == step and checkpoints.committed == checkpoint_name(step)
    return run


def test_what_is_written_is_what_was_there_when_it_was_asked_for(tmp_path, monkeypatch):
    go, engine = threading.Event(), _OneRank()
    real = module.write_shard
    monkeypatch.setattr(module, "write_shard", lambda *a: (go.wait(30), real(*a)))
    run = RunFolder(tmp_path / "run")
    checkpoints, seen = CheckpointWriter(engine, run, _settings()), []
    checkpoints.save({"step": 5}, lambda: seen.append(committed_steps(run)))
    engine.weights["a"].fill_(-1.0)  # training goes on
    assert checkpoints.poll() is None and not committed_steps(run)
    go.set()
    report = checkpoints.finish()
    assert seen == [[]], "the records come before the mark"
    folder = tmp_path / "run" / checkpoint_name(5)
    reader = ShardReader.open(folder)
    assert reader.whole("a").tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert reader.tied == {"also_a": "a"} and reader.steps == {"a": 3.0, "b": 3.0}
    assert verify(run, checkpoint_name(5)) is None
    assert report.bytes == next(folder.glob("shard-*")).stat().st_size
    assert report.snapshot_bytes == 3 * 4 * 11


def test_the_next_one_waits_and_says_so(tmp_path, monkeypatch):
    real = module.write_shard
    monkeypatch.setattr(module, "write_shard", lambda *a: (time.sleep(0.3), real(*a)))
    run = RunFolder(tmp_path / "run")
    checkpoints = CheckpointWriter(_OneRank(), run, _settings())
    checkpoints.save({"step": 1})
    checkpoints.save({"step": 2})
    assert checkpoints.finish().waited_s > 0.1 and committed_steps(run) == [1, 2]


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), UserError, "make room"),
        (PermissionError(errno.EACCES, "Permission denied"), UserError, "allow writing"),
        (ConnectionError("reset by peer"), CheckpointError, "reset by peer"),
    ],
)
def test_a_failure_is_told_and_leaves_the_one_before(tmp_path, monkeypatch, error, kind, text):
    run = _saved(tmp_path, 1)

    def fail(*_):
        raise error

    monkeypatch.setattr(module, "write_shard", fail)
    checkpoints = CheckpointWriter(_OneRank(), run, _settings())
    checkpoints.committed = checkpoint_name(1)
    checkpoints.save({"step": 2})
    with pytest.raises(kind, match=text) as caught:
        checkpoints.finish()
    assert "step-00000001 is intact" in str(caught.value)
    assert newest_checkpoint(run).step == 1


def test_what_the_system_refuses_keeps_its_number_through_the_file_format(tmp_path):
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    code = (
        f"{limit}\nimport torch\nfrom pathlib import Path\n"
        "from pipelines.train.engine.shards import Snapshot, write_shard\n"
        "try:\n    write_shard(Path('cut'), Snapshot({'a': torch.zeros(1000)}, {}))\n"
        "except OSError as error:\n    print('errno', error.errno)\n"
    )
    found = run_warm("-c", code, folder=tmp_path)
    assert f"errno {errno.EFBIG}" in found.stdout, found.stderr


def test_last_and_best_stay(tmp_path):
    metrics = {1: 0.5, 2: 0.1, 3: 0.9, 4: 0.8, 5: 0.7}
    run = _saved(tmp_path, 1, 2, 3, 4, 5, metrics=metrics, keep=2, keep_best=2)
    assert committed_steps(run) == [1, 2, 4, 5]
    run = _saved(tmp_path / "high", 1, 2, 3, metrics=metrics, keep=1, keep_best=1, best_is="highest")
    assert committed_steps(run) == [3]


def test_a_half_of_an_earlier_start_is_replaced(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.local(f"{checkpoint_name(1)}/shard-00001-of-00002.safetensors").write_bytes(b"half")
    _saved(tmp_path, 1)
    assert verify(run, checkpoint_name(1)) is None
    assert len(list((tmp_path / "run" / checkpoint_name(1)).glob("shard-*"))) == 1


def test_elements_are_read_across_files(tmp_path):
    whole = torch.randn(3, 7)
    cuts, shards = [0, 5, 6, 21], {}
    for i in range(3):
        part = whole.flatten()[cuts[i] : cuts[i + 1]]
        piece = Piece("p", (3, 7), cuts[i], dict.fromkeys(KINDS, part), torch.tensor(1.0))
        snapshot = take_snapshot([piece])
        write_shard(tmp_path / f"{i}", snapshot)
        shards[f"{i}"] = snapshot.parameters
    layout = json.loads(json.dumps(layout_of(shards, {})))
    reader = ShardReader(tmp_path, layout)
    assert torch.equal(reader.whole("p"), whole)
    part = torch.empty(9)
    reader.read("exp_avg", "p", 4, part)
    assert torch.equal(part, whole.flatten()[4:13])
    assert reader.files_for([("p", 5, 1)]) == {"1"} and reader.files_for([("p", 0, 6)]) == {"0", "1"}
    with pytest.raises(ValueError, match="holds 2 of 3 elements"):
        reader.read("weight", "p", 19, torch.empty(3))


def test_moments_of_another_optimizer_are_refused_with_the_way_out(tmp_path):
    """Muon keeps no second moment, and AdamW would take huge steps from one of zeros."""
    values = torch.randn(4)
    muon = Piece("p", (2, 2), 0, {"weight": values, "exp_avg": values}, torch.tensor(1.0))
    snapshot = take_snapshot([muon])
    write_shard(tmp_path / "0", snapshot)
    reader = ShardReader(tmp_path, json.loads(json.dumps(layout_of({"0": snapshot.parameters}, {}))))
    fresh = {"weight": torch.zeros(4), "exp_avg": torch.zeros(4)}
    reader.restore([Piece("p", (2, 2), 0, fresh, None)])
    assert torch.equal(fresh["exp_avg"], values)
    with pytest.raises(UserError, match=r"no exp_avg_sq of p: .* another train.optimizer; .*init.model"):
        reader.restore([Piece("p", (2, 2), 0, {k: torch.zeros(4) for k in KINDS}, None)])


def test_another_model_is_refused_by_name():
    with pytest.raises(UserError, match=r"b \(\(2,\) in the checkpoint, \(3,\) in the model\); c \(absent"):
        check_shapes({"a": (1,), "b": (3,), "c": (1,)}, {"a": (1,), "b": (2,)}, "there")


def _half_frozen(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    return model


def test_frozen_weights_are_written_once_and_win_over_others(tmp_path, caplog):
    run, model = RunFolder(tmp_path / "run"), _half_frozen(0)
    entry = in_background(lambda: write_frozen(run, frozen_tensors(model)), "frozen").result(10)
    file = tmp_path / "run" / entry["file"]
    written = file.stat().st_mtime_ns
    assert write_frozen(run, frozen_tensors(model)) == entry and file.stat().st_mtime_ns == written
    other = _half_frozen(1)
    own = other[1].weight.clone()
    restore_frozen(other, run, entry)
    assert "differ" in caplog.text
    assert content_hash(frozen_tensors(other)) == entry["content"] and torch.equal(other[1].weight, own)
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(UserError, match="damaged"):
        restore_frozen(_half_frozen(1), run, entry)
    file.unlink()
    with pytest.raises(UserError, match="missing"):
        restore_frozen(_half_frozen(1), run, entry)
