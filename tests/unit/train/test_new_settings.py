"""A run that began before a setting of the samples was there goes on with its default, and only with it."""

import pytest
import yaml

from pipelines.config import Config
from pipelines.runs.folder import RunFolder
from pipelines.train.driver.prepare import prepare_run
from tests.train_runs import tiny_values
from unigeoseg.errors import UserError

NEW = ("filters", "source_shares", "recut", "augment")
WARMUP = [{"until": 0.5, "shares": {"interactive": 1.0}}]


@pytest.fixture
def run(tmp_path):
    """The folder of a run whose configuration lacks the settings."""
    folder = RunFolder(tmp_path / "run")
    prepare_run(Config.model_validate(tiny_values(**{"pts.warmup": WARMUP})), folder, resume=False)
    path = tmp_path / "run/config.yaml"
    values = yaml.safe_load(path.read_text())
    for name in NEW:
        del values["data"][name]
    del values["engine"]["hpz_partition_size"]
    for phase in values["pts"]["warmup"]:
        del phase["filters"]
    path.write_text(yaml.safe_dump(values))
    return folder


def test_defaults_are_what_such_a_run_had(run):
    prepare_run(Config.model_validate(tiny_values(**{"pts.warmup": WARMUP})), run, resume=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.augment", {"flips": True}),
        ("data.filters", [{"min_area": 0.1}]),
        ("data.source_shares", {"tiny": 1.0}),
        ("data.recut", True),
        ("pts.warmup", [WARMUP[0] | {"filters": [{"max_area": 0.5}]}]),
    ],
)
def test_another_value_is_another_run(run, key, value):
    config = Config.model_validate(tiny_values(**{"pts.warmup": WARMUP, key: value}))
    with pytest.raises(UserError, match=f"--allow-config-change {key}"):
        prepare_run(config, run, resume=True)
