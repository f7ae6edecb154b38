"""Numbers with an exponent are numbers in every YAML that is read, and text like them stays text."""

import re
from pathlib import Path

import pytest

from jobs.settings import load_config
from pipelines.experiments.space import load_space
from pipelines.storage.yaml_text import dump_yaml, load_yaml

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("text", ["1e-5", "1E3", "-2.5e+1", ".5e2", "1.e2", "3e4", "1.0e-4", "7", "0.5"])
def test_numbers(text):
    value = load_yaml(f"a: {text}")["a"]
    assert isinstance(value, int | float) and value == float(text)


@pytest.mark.parametrize("text", ["1e", "e5", "12e4f", "1e5x", "'1e5'", "1.2.3"])
def test_text(text):
    assert not isinstance(load_yaml(f"a: {text}")["a"], float)


def test_what_is_written_is_read_back():
    values = {"a": "1e5", "b": 1e-05, "c": "12e4567", "d": ["1E3", 2.5e30], "e": "é"}
    assert load_yaml(dump_yaml(values)) == values


def test_a_search_space_and_a_preset_take_them(tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("metric: val/giou\nmode: max\nspace: {train.lr: {loguniform: [1e-5, 1e-3]}}\n")
    preset = tmp_path / "mine.yaml"
    preset.write_text("extends: quickstart\ntrain: {lr: 2e-4}\n")
    config = load_config(preset)
    assert config.train.lr == 2e-4 and load_config(preset, ["train.lr=3e-4"]).train.lr == 3e-4
    assert load_space(space, config).draws["train.lr"] == ("loguniform", (1e-5, 1e-3))


def test_nothing_reads_yaml_of_people_in_another_way():
    """Files of the package itself may; ``cluster`` imports nothing of ours."""
    own = {"roles.py", "table10.py", "taxonomy.py", "grid.py", "yaml_text.py"}
    for folder in ("pipelines", "jobs"):
        for file in (ROOT / folder).rglob("*.py"):
            if file.name not in own:
                assert not re.search(
                    r"yaml\.(safe_)?(load|dump)\(", file.read_text().replace("yaml.load(text, L", "")
                ), file
