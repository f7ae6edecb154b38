"""Ledger, checkpoint manifest, resume checks: what a run is taken up from."""

import json
import os

import pytest
import yaml

from pipelines.config import Config
from pipelines.evaluate.history import History
from pipelines.runs.folder import RunFolder
from pipelines.runs.ledger import StepLog, parse_rows, read_rows
from pipelines.runs.manifest import (
    COMMITTED,
    MANIFEST,
    STATE,
    all_steps,
    checkpoint_name,
    committed_steps,
    describe,
    newest_checkpoint,
    verify,
)
from pipelines.train.driver.prepare import check_same, config_hash, prepare_run
from tests.train_runs import tiny_values
from unigeoseg.errors import UserError


def _row(step):
    return {"step": step, "position": 4 * step, "sample_ids": [f"é{step}"]}


def test_ledger_replaces_replayed_steps(tmp_path):
    path = tmp_path / "ledger.jsonl"
    first = StepLog(path)
    first.append(_row(step) for step in range(7))
    first.close()
    again = StepLog(path, resume_step=4)
    assert [r["step"] for r in read_rows(path)] == [0, 1, 2, 3]
    again.append([_row(4)])
    again.append([_row(5)])
    again.close()
    assert read_rows(path) == [_row(step) for step in range(6)]


def test_ledger_drops_a_row_that_a_crash_cut_short(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps(_row(0)) + "\n" + json.dumps(_row(1))[:9])
    assert read_rows(path) == [_row(0)]
    StepLog(path, resume_step=9).close()
    assert read_rows(path) == [_row(0)]


def test_rows_are_lines_whatever_their_texts_hold(tmp_path):
    """Python's own ``splitlines`` cuts at more than line ends."""
    row = _row(0) | {"sample_ids": ["a\u2028b", "c\x85d", "e\x0cf"]}
    (tmp_path / "ledger.jsonl").write_text(
        json.dumps(row, ensure_ascii=False) + '\n[1]\n{"no": 1}\n', encoding="utf-8"
    )
    assert read_rows(tmp_path / "ledger.jsonl") == [row]
    assert parse_rows(b'{"step": 1}\n{"step": 2, "lo') == [{"step": 1}]
    assert len(History(tmp_path / "ledger.jsonl")) == 1


def test_an_object_of_a_run_is_written_whole_and_read_or_empty(tmp_path):
    run = RunFolder(tmp_path)
    assert run.read_json("a.json") == {}
    run.write_json("a.json", {"b": 1})
    assert run.read_json("a.json") == {"b": 1} and not (tmp_path / "a.partial").exists()
    for text in ("[1]", "{"):
        (tmp_path / "a.json").write_text(text)
        assert run.read_json("a.json") == {}


def _checkpoint(run, step, **state):
    folder = run.local(f"{checkpoint_name(step)}/{STATE}").parent
    (folder / "shard.pt").write_bytes(os.urandom(1000))
    (folder / STATE).write_text(json.dumps({"step": step, **state}))
    files = describe(folder, ["shard.pt", STATE])
    (folder / MANIFEST).write_text(json.dumps({"files": files}))
    (folder / COMMITTED).write_text("")
    return folder


def _flip(path):
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "shard.pt").write_bytes((f / "shard.pt").read_bytes()[:-1]),
        lambda f: (f / "shard.pt").unlink(),
        lambda f: _flip(f / "shard.pt"),
        lambda f: (f / MANIFEST).write_text("{"),
        lambda f: (f / MANIFEST).unlink(),
        lambda f: (f / COMMITTED).unlink(),
    ],
    ids=["truncated", "missing", "flipped bit", "manifest cut", "no manifest", "not committed"],
)
def test_damaged_newest_checkpoint_is_passed_over(tmp_path, damage, caplog):
    run = RunFolder(tmp_path / "run")
    _checkpoint(run, 100)
    newest = _checkpoint(run, 200)
    assert newest_checkpoint(run).step == 200 and verify(run, checkpoint_name(200)) is None
    damage(newest)
    found = newest_checkpoint(run)
    assert (found.step, found.name, found.state) == (100, "checkpoints/step-00000100", {"step": 100})
    assert committed_steps(run)[0] == 100 and all_steps(run) == [100, 200]
    if (newest / COMMITTED).exists():
        assert "step-00000200 is damaged" in caplog.text


def test_no_checkpoint(tmp_path):
    assert newest_checkpoint(RunFolder(tmp_path / "run")) is None


def _config(**overrides):
    return Config.model_validate(tiny_values(**overrides))


def test_resume_allows_what_does_not_change_the_course(tmp_path):
    run = RunFolder(tmp_path / "run")
    assert prepare_run(_config(), run, resume=False) is None
    allowed = _config(**{"checkpoint.every": 7, "train.log_every": 3, "tracking.uri": "http://x"})
    assert prepare_run(allowed, run, resume=True) is None
    assert config_hash(allowed) == config_hash(_config()) != config_hash(_config(seed=1))


@pytest.mark.parametrize(
    "absent",
    [
        "data.recut",
        "train.compile_backend",
        "engine.reduction_dtype",
        "model.decoder.prompt_maps",
        "recovery",
    ],
)
def test_a_run_of_a_version_without_a_setting_goes_on(tmp_path, absent):
    run = RunFolder(tmp_path / "run")
    prepare_run(_config(), run, resume=False)
    *sections, last = absent.split(".")
    saved = place = yaml.safe_load(run.local("config.yaml").read_text())
    for section in sections:
        place = place[section]
    del place[last]
    run.local("config.yaml").write_text(yaml.safe_dump(saved))
    assert prepare_run(_config(), run, resume=True) is None


def test_resume_refuses_another_course_and_names_the_keys():
    with pytest.raises(UserError, match=r"train\.lr: 0\.001 -> 0\.1\n  train\.steps: 8 -> 9"):
        check_same(_config().plain(), _config(**{"train.lr": 0.1, "train.steps": 9}).plain(), "run")


def test_a_run_is_not_overwritten_and_none_is_not_resumed(tmp_path):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match="no run to resume"):
        prepare_run(_config(), run, resume=True)
    prepare_run(_config(), run, resume=False)
    run.local("tokenizer/tokenizer.json").write_text("of a start that failed")
    prepare_run(_config(seed=1), run, resume=False)
    assert not run.exists("tokenizer")
    run.local("ledger.jsonl").write_text("")
    with pytest.raises(UserError, match="holds a run already: add --resume"):
        prepare_run(_config(), run, resume=False)


def test_a_tokenizer_that_no_run_put_there_is_not_removed(tmp_path):
    (tmp_path / "mine/tokenizer").mkdir(parents=True)
    (tmp_path / "mine/tokenizer/tokenizer.json").write_text("weeks of work")
    with pytest.raises(UserError, match="tokenizer that no run put there"):
        prepare_run(_config(), RunFolder(tmp_path / "mine"), resume=False)
    assert (tmp_path / "mine/tokenizer/tokenizer.json").read_text() == "weeks of work"


def test_a_file_in_the_way_of_the_run_folder_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to the run folder"):
        prepare_run(_config(), RunFolder(tmp_path / "file" / "run"), resume=False)
