"""A language model of a folder never lies whole in a worker's own memory on its way to stage 3's parts."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import PhiConfig, PhiForCausalLM

from tests.train_runs import ROOT

pytestmark = pytest.mark.integration

RANKS = 2
#: For what is not the language model, its largest matrices, and what the allocator keeps.
ALLOWED = 40 * 2**20


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language-model")
    torch.manual_seed(0)
    sizes = {"vocab_size": 4096, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 18}
    PhiForCausalLM(PhiConfig(**sizes, num_attention_heads=8)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("precision", "width"), [pytest.param("fp32", 4, marks=pytest.mark.slow), ("bf16", 2)]
)
def test_each_rank_holds_its_part_and_little_more(language_model, precision, width):
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS), "-m"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "tests.host_memory", str(language_model), precision],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == RANKS
    for rank in found:
        whole = rank["parameters"] * width
        assert whole / RANKS > ALLOWED, "a whole model must not pass"
        assert rank["made"] < ALLOWED, "its weights are mapped, not read"
        assert rank["cut"] < whole / RANKS + ALLOWED, rank
