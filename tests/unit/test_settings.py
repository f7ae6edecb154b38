"""Presets, overrides and the words for what is wrong with them."""

from pathlib import Path

import pytest
import yaml

from jobs.settings import (
    load_build_config,
    load_config,
    merge,
    parse_sets,
    preset_names,
    print_config,
    read_preset,
)
from pipelines.config import Config
from unigeoseg.errors import UserError


def refusal(preset="quickstart", *sets):
    with pytest.raises(UserError) as caught:
        load_config(preset, sets)
    return str(caught.value)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_survives_a_round_trip(name, tmp_path):
    config = load_config(name)
    assert config.name == name
    saved = tmp_path / "config.yaml"
    saved.write_text(print_config(config))
    assert load_config(saved) == config


def test_the_named_presets_are_there():
    assert {"paper", "quickstart", "small-cpu", "small", "deepseek7b"} <= set(preset_names())


def test_paper_preset_is_table_11():
    config = load_config("paper")
    train, model = config.train, config.model
    assert (train.lr, train.warmup_ratio, train.weight_decay) == (1e-4, 0.03, 0.0)
    assert (train.schedule, train.precision, train.global_batch) == ("cosine", "bf16", 16)
    assert (train.epochs, train.steps, train.activation_checkpointing) == (3, None, True)
    assert (model.image_size, model.vision.frozen, model.mode) == (512, True, "paper")
    assert (model.vision.embed_dim, model.vision.depths, model.vision.window) == (128, (2, 2, 18, 2), 12)
    assert (config.engine.zero_stage, config.scale.workers, config.scale.gpus_per_worker) == (2, 8, 1)
    assert (config.pts.schedule, config.pts.end_weight, config.pts.base) == ("linear", 0.7, "natural")


def test_compilation_and_zero_stage_3_exclude_each_other():
    assert "use stage 2" in refusal("paper", "train.compile=true", "engine.zero_stage=3")
    assert load_config("paper", ["train.compile=true"]).train.compile
    assert "does nothing without train.compile=true" in refusal("paper", "train.compile_backend=cudagraphs")


def test_set_values_are_yaml_and_later_ones_win():
    parsed = parse_sets(
        ["train.lr=3e-4", "train.lr=2.5E-3", "a.b.c=[1, 2]", "a.b.d=null", "e=true", "f=text", "g="]
    )
    expected = {
        "train": {"lr": 2.5e-3},
        "a": {"b": {"c": [1, 2], "d": None}},
        "e": True,
        "f": "text",
        "g": None,
    }
    assert parsed == expected


def test_merge_goes_down_dictionaries_and_replaces_the_rest():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}}
    assert merge(base, {"a": {"c": [3]}, "d": None}) == {"a": {"b": 1, "c": [3]}, "d": None}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}}


def test_overrides_reach_dataclass_and_pydantic_sections():
    config = load_config("quickstart", ["model.vision.depths=[1,1,1,1]", "train.steps=7", "pts.base=natural"])
    assert config.model.vision.depths == (1, 1, 1, 1)
    assert (config.train.steps, config.pts.base) == (7, "natural")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lrr=1", "unknown key train.lrr; did you mean train.lr?"),
        ("trian.lr=1", "unknown key trian; did you mean train?"),
        ("model.vision.dpths=1", "unknown key model.vision.dpths; did you mean model.vision.depths?"),
        ("build.tile.sise=1", "unknown key build.tile.sise; did you mean build.tile.size?"),
        ("zero_stage=1", "unknown key zero_stage; did you mean engine.zero_stage?"),
        ("engine.qqqq=1", "unknown key engine.qqqq; engine has zero_stage, offload_optimizer"),
        ("pts.warmup=[{until: 1, shres: {}}]", "did you mean pts.warmup.0.shares?"),
    ],
)
def test_unknown_key_names_the_nearest_valid_one(override, expected):
    message = refusal("quickstart", override)
    assert expected in message
    assert f"--set {override}" in message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.lr=-1", ["train.lr=-1", "greater than 0", "default 0.0001"]),
        ("train.lr=abc", ["train.lr='abc'", "valid number"]),
        ("engine.zero_stage=4", ["engine.zero_stage=4", "0, 1, 2 or 3"]),
        ("pts.base=abc", ["pts.base='abc'", "'natural'"]),
        ("train=3", ["train=3", "a section", "train.steps=VALUE"]),
        ("train.lr", ["--set train.lr", "dotted.key=value"]),
        ("train.lr={", ["--set train.lr={", "not valid YAML"]),
    ],
)
def test_wrong_value_is_named_with_its_problem(override, parts):
    message = refusal("quickstart", override)
    assert all(part in message for part in parts), message


def test_contradicting_fields_name_the_remedy():
    message = refusal("quickstart", "train.global_batch=7", "scale.workers=2")
    assert "train.global_batch=7 cannot be split over scale.workers=2; use 6 or 8" in message
    message = refusal("quickstart", "train.global_batch=16", "scale.workers=2", "train.micro_batch=3")
    assert "use one of [1, 2, 4, 8]" in message


def test_all_problems_come_in_one_message():
    message = refusal("quickstart", "train.lr=0", "model.mode=x", "scale.wrkers=3")
    assert message.startswith("3 problems")
    assert all(part in message for part in ("train.lr=0", "model.mode='x'", "scale.wrkers"))


def test_unknown_preset_names_the_nearest_and_all():
    message = refusal("quickstrat")
    assert "did you mean quickstart?" in message
    assert "paper" in message
    assert "no preset some/where.yaml" in refusal("some/where.yaml")


def test_extends_lays_a_file_over_another(tmp_path):
    (tmp_path / "base.yaml").write_text("train: {lr: 1.0e-2, steps: 5}\nscale: {workers: 1}\n")
    (tmp_path / "child.yaml").write_text("extends: base\ntrain: {steps: 9}\n")
    config = load_config(tmp_path / "child.yaml")
    assert (config.name, config.train.lr, config.train.steps) == ("child", 1e-2, 9)
    (tmp_path / "over.yaml").write_text("extends: paper\nscale: {workers: 4}\n")
    over = load_config(tmp_path / "over.yaml")
    assert (over.scale.workers, over.scale.gpus_per_worker) == (4, 1)


def test_circle_of_extends_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: a\n")
    assert "a → b → a" in refusal(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["- 1\n", "just text\n", "a: [\n"])
def test_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert str(path) in refusal(path)


def test_build_settings_are_relative_to_their_section():
    assert load_build_config(None, ["tile.size=256"]).tile.size == 256
    preset = load_build_config("quickstart", ["seed=5"])
    assert (preset.seed, preset.tile.size) == (5, read_preset("quickstart")["build"]["tile"]["size"])
    with pytest.raises(UserError, match=r"unknown key tile.sise; did you mean tile.size\?"):
        load_build_config(None, ["tile.sise=1"])


def test_printed_configuration_is_complete_yaml():
    config = load_config("paper", ["seed=3"])
    assert yaml.safe_load(print_config(config)) == config.plain()


def test_a_word_that_no_choice_has_names_the_nearest():
    message = refusal("quickstart", "model.loss.sampling=unifrom")
    assert "did you mean uniform?" in message and "'dense'" in message


def test_paths_of_weights_hold_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sets = ["init.model=runs/a/export", "tokenizer.path=~/words", "model.language.path=s3://bucket/phi"]
    config = load_config("small-cpu", sets)
    monkeypatch.chdir("/")
    again = Config.model_validate(config.plain())
    assert again.init.model == str(tmp_path / "runs/a/export")
    assert again.tokenizer.path == str(Path.home() / "words")
    assert again.model.language.path == "s3://bucket/phi"
