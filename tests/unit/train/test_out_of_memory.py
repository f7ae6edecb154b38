"""Settings that hold less than those that did not fit, and change nothing else."""

import pytest
import torch

from pipelines.config import Config
from pipelines.runs.folder import RunFolder
from pipelines.train.loop.out_of_memory import out_of_memory, smaller
from tests.train_runs import tiny_values


@pytest.mark.parametrize(
    ("values", "images", "told"),
    [
        (
            {"scale.workers": 2, "train.global_batch": 24},
            12,
            [
                "train.activation_checkpointing",
                "train.micro_batch=6",
                "engine.zero_stage=3",
                "engine.offload",
            ],
        ),
        (
            {"train.activation_checkpointing": True, "train.optimizer": "muon", "train.global_batch": 9},
            9,
            ["train.micro_batch=3 (the same batch in 3 times as many)"],
        ),
        ({"train.activation_checkpointing": True, "engine.offload_optimizer": True}, 1, ["a smaller model."]),
    ],
)
def test_what_holds_less(values, images, told):
    values = {"scale.workers": 1, "train.micro_batch": images} | values
    config = Config.model_validate(tiny_values(**values))
    found = smaller(config, config.scale.workers, images)
    assert [text.startswith(start) for text, start in zip(found, told, strict=True)] == [True] * len(told)
    for text in found[: None if images > 1 else 0]:  # each is a setting that the configuration takes
        key, value = text.split(" ")[0].split("=")
        Config.model_validate(tiny_values(**{**values, key: {"true": True}.get(value) or int(value)}))


def test_a_run_folder_that_cannot_be_written_hides_nothing(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    config = Config.model_validate(tiny_values(**{"scale.workers": 2, "train.micro_batch": 1}))

    def full(*_, **__):
        raise OSError(28, "no space")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    error = out_of_memory(torch.OutOfMemoryError("none left"), config, run)
    assert "rank 0's device cannot hold this training with 1 image at once (none left)" in str(error)
    assert "diagnostics" not in str(error)
