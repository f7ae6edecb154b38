"""``unigeoseg train --plain``: alone and under torchrun, the same run as with Ray, and without Ray at all."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from pipelines.config import Config
from pipelines.models.sizes import measure_model
from pipelines.store.index import StoreIndex
from pipelines.train.engine.memory import needed, with_micro_batch
from pipelines.train.loop import micro_batch
from tests.train_runs import ROOT, tiny_values
from tests.warm import run_warm

pytestmark = pytest.mark.integration
#: Every import of Ray fails, as where it is not installed. No thread of the process group lives on, which
#: could abort the process as it ends.
WITHOUT_RAY = """
import sys
from pathlib import Path

sys.modules["ray"] = None
sys.argv[0] = "unigeoseg"
from jobs.cli import main

try:
    main()
finally:
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name], threads
"""


def _train(tmp_path, store, name, workers):
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(tiny_values()))
    options = ["--preset", preset, "--store", store, "--run", tmp_path / name, "--plain", "--json"]
    sets = [f"scale.workers={workers}", "evaluation.split=train", "evaluation.max_samples=6"]
    options += [word for value in sets for word in ("--set", value)]
    done = run_warm("-c", WITHOUT_RAY, "train", *options) if workers == 1 else _under_torchrun(*options)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / name / "summary.json").read_text())
    return summary


def _under_torchrun(*options):
    """As a user starts it. Without ``--`` torchrun takes --run for an option of its own."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    torchrun += ["-m", "--", "jobs.train"]
    return subprocess.run(
        [sys.executable, *torchrun, *map(str, options)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_one_process_and_two_ranks_make_the_same_run(tmp_path, tiny_store):
    alone = _train(tmp_path, tiny_store, "alone", 1)
    pair = _train(tmp_path, tiny_store, "pair", 2)
    assert (alone["steps"], alone["world_size"], pair["world_size"]) == (8, 1, 2)
    assert alone["samples_seen"] == pair["samples_seen"] > 0
    assert alone["mlflow_unsent"] == pair["mlflow_unsent"] == 0
    assert set(alone["tasks"]) == set(pair["tasks"]) == {"interactive", "referring", "reasoning"}
    counts = [{task: values["n"] for task, values in each["tasks"].items()} for each in (alone, pair)]
    assert counts[0] == counts[1] and all(0 < n <= 6 for n in counts[0].values())
    ledgers = [(tmp_path / name / "ledger.jsonl").read_text() for name in ("alone", "pair")]
    ids = [[sorted(json.loads(line)["sample_ids"]) for line in text.splitlines()] for text in ledgers]
    assert ids[0] == ids[1] and len(ids[0]) == 8
    assert (tmp_path / "alone" / "report.html").exists()


def test_the_number_of_processes_is_checked(tmp_path, tiny_store, run_cli):
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(tiny_values()))
    options = ["--preset", preset, "--store", tiny_store, "--run", tmp_path / "run"]
    done = run_cli("train", *options, "--plain", "--set", "scale.workers=2")
    assert done.returncode == 2 and "1 processes run; set scale.workers=1" in done.stderr


def test_the_micro_batch_that_memory_allows_trains_as_the_one_that_is_given(tmp_path, tiny_store, run_code):
    values = {"train.micro_batch": "auto", "scale.workers": 1, "train.steps": 3}
    config = Config.model_validate(tiny_values(**values))
    words = int(StoreIndex.open(str(tiny_store), "train").table["words"].to_numpy().max())
    sizes = measure_model(config, max(32, 2 * words))[0]
    peaks = [needed(with_micro_batch(config, held, 1), sizes, 1, 1).device for held in (2, 4)]
    free = sum(peaks) / 2 / micro_batch._OF_HOST  # room for two images, and not for four
    rows = []
    for given in ("auto", 2):
        preset, run = tmp_path / f"{given}.yaml", tmp_path / str(given)
        preset.write_text(yaml.safe_dump(tiny_values(**values | {"train.micro_batch": given})))
        command = ["unigeoseg", "train", "--preset", preset, "--store", tiny_store, "--run", run]
        done = run_code(
            "import sys\n"
            "from pipelines.train.loop import micro_batch\n"
            f"micro_batch._free = lambda: {free}\n"
            f"sys.argv = {[str(word) for word in [*command, '--plain', '--no-evaluate']]}\n"
            "from jobs.cli import main\n"
            "main()",
            OMP_NUM_THREADS="1",
        )
        assert done.returncode == 0, done.stderr
        told = "train.micro_batch=auto: 2 of a worker's 4 positions at once, 2 times a step; by the"
        assert (told in done.stderr) == (given == "auto"), done.stderr
        rows.append([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()])
    losses = [[(row["step"], row["loss"], row["grad_norm"]) for row in each] for each in rows]
    assert losses[0] == losses[1] and len(losses[0]) == 3


@pytest.mark.parametrize("where", ["Engine.train_step", "Engine.__init__"])
def test_a_device_that_is_too_small_ends_the_run_with_settings_that_hold_less(
    where, tmp_path, tiny_store, run_code
):
    preset, run = tmp_path / "tiny.yaml", tmp_path / "run"
    preset.write_text(yaml.safe_dump(tiny_values(**{"scale.workers": 1, "evaluation.split": "train"})))
    words = ["unigeoseg", "train", "--preset", preset, "--store", tiny_store, "--run", run, "--plain"]
    done = run_code(
        "import sys, torch\n"
        "from pipelines.train.engine.engine import Engine\n"
        "def full(*_, **__):\n"
        "    raise torch.OutOfMemoryError('CUDA out of memory. Tried 2 GiB.\\nMore.')\n"
        f"{where} = full\n"
        f"sys.argv = {[str(word) for word in words]}\n"
        "from jobs.cli import main\n"
        "main()",
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 2, done.stderr
    told = done.stderr.splitlines()[-1]
    assert "rank 0's device cannot hold this training with 4 images at once (CUDA out of memory." in told
    assert "Set train.activation_checkpointing=true (a third more time); or train.micro_batch=2 (" in told
    written = (run / "diagnostics" / "out-of-memory-rank-0.txt").read_text()
    assert written.startswith("CUDA out of memory") and "More." in written
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
