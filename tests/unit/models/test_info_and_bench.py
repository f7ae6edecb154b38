"""``model info`` counts what the paper's table counts; ``bench step`` attributes all of a step."""

import json
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jobs.settings import load_config
from pipelines.bench.engine_bench import what_is_lacking
from pipelines.bench.stopwatch import PARTS
from pipelines.models.info import describe, describe_both, flops_of_parts
from pipelines.models.sizes import Sizes
from pipelines.train.engine.distributed import ensure_process_group, leave_process_group
from unigeoseg.build import build_model


def rows(result):
    return {row["name"]: row for row in result["modules"]}


def test_the_paper_preset_has_the_released_modules_sizes():
    """Modules that both modes share, as counted on the released code; the text parts differ by design."""
    result = describe(load_config("paper", ["tokenizer.vocab_size=51200"]))
    counted = {name: row["parameters"] for name, row in rows(result).items()}
    assert counted["vision"] == 86_880_376
    assert counted["connector"] == 62_134_272
    assert counted["language.embeddings"] == 104_857_600
    assert counted["language.layers"] == 1_208_504_320
    assert counted["language.head"] == 104_857_600 + 51_200  # Hugging Face's Phi has a bias here
    assert counted["lkm"] == 8_192
    assert counted["query"] == 2 * 1_049_088 + 524_800 + 1_576_960 + 262_400
    assert counted["pixel_decoder"] == 5_544_896
    assert result["total"] == sum(counted.values())
    assert rows(result)["vision"]["trainable"] == 0
    assert rows(result)["vision"]["activation_bytes"] == rows(result)["vision"]["flops_backward"] == 0
    assert all(row["flops_forward"] > 0 for name, row in rows(result).items() if "embeddings" not in name)


def test_flops_are_those_of_a_real_pass():
    config = load_config("quickstart", ["tokenizer.vocab_size=300"])
    model = build_model(config.model, 300)
    counted = rows(describe(config))["vision"]["flops_forward"]
    with FlopCounterMode(display=False) as real:
        model.vision(torch.zeros(1, 3, 128, 128, dtype=torch.uint8))
    assert counted == pytest.approx(real.get_total_flops(), rel=1e-6)
    (image, instruction), (same, longer) = (flops_of_parts(config, tokens) for tokens in (100, 200))
    assert image == same and instruction < longer


def test_checkpointing_keeps_less():
    both = describe_both(load_config("quickstart"))
    for on, told in both.items():
        alone = describe(load_config("quickstart", [f"train.activation_checkpointing={str(on).lower()}"]))
        assert told["activation_bytes"] == alone["activation_bytes"]
        for row, same in zip(told["modules"], alone["modules"], strict=True):
            assert on or row == same  # with it, the FLOPs of recomputation are left out
            memory = ("name", "parameters", "trainable", "activation_bytes", "peak_bytes")
            assert {key: row[key] for key in memory} == {key: same[key] for key in memory}
    assert both[True]["activation_bytes"] < both[False]["activation_bytes"]


def test_bench_step_as_a_command(run_cli):
    done = run_cli("bench", "step", "--preset", "quickstart", "--batch", "2", "--steps", "1", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["name"] for row in result["rows"]] == list(PARTS)
    assert sum(row["share"] for row in result["rows"]) == pytest.approx(1)
    assert all(row["seconds"] > 0 for row in result["rows"])
    assert result["ratios"]["samples_per_second"] > 0 and result["ratios"]["peak_memory_bytes"] > 0
    assert result["ratios"]["mfu"] is None and result["machine"]["threads"] >= 1
    (engine,) = result["engine"]
    assert (engine["batch"], engine["instructions"], engine["workers"], engine["zero_stage"]) == (2, 4, 1, 2)
    assert engine["samples_per_second"] == pytest.approx(8 / engine["step_seconds"])
    assert engine["images_per_second"] == pytest.approx(2 / engine["step_seconds"])
    assert engine["padding"] == 0 and engine["mfu"] is None
    parts = sum(engine[part] for part in ("forward", "backward", "optimizer"))
    assert 0.5 * engine["step_seconds"] < parts < 1.01 * engine["step_seconds"]
    assert engine["of_bare"] == pytest.approx(engine["step_seconds"] / result["ratios"]["step_seconds"])


@pytest.mark.slow
def test_ranks_that_torchrun_started_bench_one_engine(run_module):
    ranks = ["--standalone", "--nproc-per-node", 2, "-m", "--", "jobs.bench_step", "--preset", "quickstart"]
    padded = ["--set", "data.length_multiple=64", "--steps", "1", "--batch", "1", "--batch", "2", "--json"]
    done = run_module("torch.distributed.run", *ranks, *padded, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    engine = json.loads(done.stdout)["engine"]  # one document: the second rank prints nothing
    assert [(row["batch"], row["workers"]) for row in engine] == [(1, 2), (2, 2)]
    for row in engine:
        assert row["samples_per_second"] == pytest.approx(8 * row["batch"] / row["step_seconds"])
        assert 0 < row["padding"] < 0.6


def test_an_engine_that_the_memory_cannot_hold_is_left_out_with_the_reason():
    config, cpu = load_config("quickstart"), torch.device("cpu")
    own = ensure_process_group()
    try:
        assert what_is_lacking(config, Sizes(2 * 10**6, 10**6, 10**5, {}), cpu) is None
        text = what_is_lacking(config, Sizes(10**13, 10**13, 10**5, {}), cpu)
    finally:
        if own:
            leave_process_group()
    gib = int(re.search(r"take about (\d+) GiB", text)[1])  # weight, master, moments, gradient and more
    assert 5 * 4 * 10**13 < gib * 2**30 < 8 * 4 * 10**13 and "are free here" in text


def test_a_snapshot_needs_a_gpu(run_cli):
    done = run_cli("bench", "step", "--preset", "quickstart", "--memory-snapshot", "memory.pickle")
    assert done.returncode == 2 and "add --device cuda" in done.stderr


def test_bench_step_takes_several_batches_and_names_kernels(run_cli):
    options = ["--preset", "quickstart", "--steps", "1", "--warmup", "0", "--kernels", "3"]
    done = run_cli("bench", "step", *options, "--batch", "1", "--batch", "2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [each["batch"] for each in result["batches"]] == [1, 2]
    assert result["ratios"] == result["batches"][-1]
    seconds = [row["seconds"] for row in result["kernels"]]
    assert len(seconds) == 3 and seconds == sorted(seconds, reverse=True) and seconds[-1] > 0
    assert all(0 < row["share"] < 1 and row["calls"] >= 1 for row in result["kernels"])


def test_bench_step_beside_the_released_codes_arrangement(run_cli):
    released = ["--set", "model.mode=released", "--batch", "2", "--steps", "1"]
    done = run_cli("bench", "step", "--preset", "quickstart", *released, "--beside-plain", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    ours, plain = (sum(row[key] for row in result["rows"]) for key in ("seconds", "plain_seconds"))
    optimizer = next(row["seconds"] for row in result["rows"] if row["name"] == "optimizer")
    assert result["ratios"]["of_plain"] == pytest.approx((ours - optimizer) / plain, rel=1e-6)
    done = run_cli("bench", "step", "--preset", "quickstart", "--beside-plain")
    assert done.returncode == 2 and "model.mode=released" in done.stderr


def test_bench_refuses_a_device_that_is_not_there(run_cli):
    done = run_cli("bench", "step", "--preset", "quickstart", "--device", "toaster")
    assert done.returncode == 2 and "give cpu or cuda" in done.stderr


def test_a_full_device_leaves_what_was_measured_before(run_code):
    code = (
        "import torch\n"
        "from jobs.settings import load_config\n"
        "from pipelines.bench.engine_steps import EngineSteps\n"
        "from pipelines.bench.step import bench_step\n"
        "real = EngineSteps.step\n"
        "def step(self):\n"
        "    if len(self.batch.images) > 1:\n"
        "        raise torch.OutOfMemoryError('CUDA out of memory. Tried 2 GiB.\\nMore.')\n"
        "    return real(self)\n"
        "EngineSteps.step = step\n"
        "found = bench_step(load_config('quickstart'), batches=(1, 2, 3), steps=1, warmup=0)\n"
        "first, second = found['engine']\n"
        "assert first['batch'] == 1 and first['of_bare'] > 0\n"
        "assert second == {'batch': 2, 'out_of_memory': 'CUDA out of memory. Tried 2 GiB.'}\n"
        "from jobs.bench_step import _step_table\n"
        "print(_step_table(found))\n"
    )
    done = run_code(code)
    assert done.returncode == 0, done.stderr
    assert "engine, 2 images: CUDA out of memory. Tried 2 GiB." in done.stdout
