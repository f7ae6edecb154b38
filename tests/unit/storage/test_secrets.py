"""Passwords in URIs are in nothing that is shown or that a run leaves, and what needs them finds them."""

import logging

import pytest

from pipelines.config import Config
from pipelines.storage.secrets import HIDDEN, hide, hide_all, keep_out_of_logs, reveal
from tests.tiny_store import write_store
from tests.train_runs import finish, start, tiny_values

WORD = "kR7sPq2x"


@pytest.mark.parametrize(
    "text",
    [
        f"http://anna:{WORD}@host:5000",
        f"MLflow at https://anna:{WORD}@host/mlflow does not answer",
        f"postgresql+psycopg2://u:{WORD}@db:5432/mlflow",
        f"postgresql://u:a/{WORD}@db/mlflow",
        f"s3://{WORD}@bucket/prefix",
        f"http://u:x@y{WORD}@host/",
        f"https://host/bucket?X-Amz-Signature={WORD}&b=1",
        f"http://host:80/?access_token={WORD}",
        f"mysql://host/db?user=u&password={WORD}",
        f"{{'uri': 'http://u:{WORD}@h'}} and http://u:{WORD}@other",
    ],
)
def test_hidden(text):
    assert WORD not in hide(text) and HIDDEN in hide(text)
    assert hide(hide(text)) == hide(text)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////runs/mlflow.db",
        "http://127.0.0.1:5000/a@b",
        "s3://bucket/pre@fix/a:b@c",
        "mail me@example.org, see https://github.com/a/b?tab=readme#x",
        "file:///data/x y",
        "anna:word@host",
    ],
)
def test_left_alone(text):
    assert hide(text) == text


def test_nested_values_and_logs(caplog):
    found = hide_all({"a": [f"http://u:{WORD}@h", 3], "b": {"c": None}})
    assert found == {"a": [f"http://{HIDDEN}@h", 3], "b": {"c": None}}
    before = logging.getLogRecordFactory()
    try:
        keep_out_of_logs()
        keep_out_of_logs()
        try:
            raise ValueError(f"no answer from http://u:{WORD}@h")
        except ValueError:
            logging.getLogger("pipelines.x").warning("at %s", f"http://u:{WORD}@h", exc_info=True)
    finally:
        logging.setLogRecordFactory(before)
    assert WORD not in caplog.text and f"at http://{HIDDEN}@h" in caplog.text


def test_what_was_hidden_is_found_in_the_environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    whole = f"http://u:{WORD}@host:5000/x"
    assert reveal(hide(whole)) == "http://host:5000/x"
    assert reveal("sqlite:///a.db") == "sqlite:///a.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", whole)
    assert reveal(hide(whole)) == whole
    assert reveal(f"http://{HIDDEN}@other") == "http://other"


def test_a_configuration_shows_none():
    config = Config.model_validate(tiny_values(**{"tracking.uri": f"http://u:{WORD}@h"}))
    assert WORD in str(config.plain()) and WORD not in str(config.shown())
    assert Config.model_validate(config.shown()).tracking.uri == f"http://{HIDDEN}@h"


def test_nothing_that_a_run_leaves_or_prints_holds_a_password(tmp_path):
    store = write_store(tmp_path / "store")
    uri = f"http://anna:{WORD}@127.0.0.1:9/mlflow"  # a port at which nobody answers
    options = {"train.steps": 2, "checkpoint.every": 2, "tracking.uri": uri, "engine.zero_stage": 0}
    environment = {"AWS_ENDPOINT_URL": f"http://anna:{WORD}@127.0.0.1:9"}
    output = finish(start("plain", tmp_path / "runs" / "r", store, environment=environment, **options))
    assert WORD not in output and f"http://{HIDDEN}@127.0.0.1:9/mlflow" in output
    left = [file for file in (tmp_path / "runs" / "r").rglob("*") if file.is_file()]
    assert {"config.yaml", "mlflow.json", "metrics.jsonl"} <= {file.name for file in left}
    for file in left:
        assert WORD.encode() not in file.read_bytes(), file
