"""A model whose weights are files never lies whole in a worker's own memory on its way to stage 3's parts."""

import json

import pytest
import torch
from transformers import PhiConfig, PhiForCausalLM

from pipelines.config import Config
from tests.engine_runs import Bench
from tests.train_runs import tiny_values
from unigeoseg.export import save_export

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


@pytest.fixture(scope="module")
def export(language_model, tmp_path_factory):
    """Of a model with that language model."""
    config = Config.model_validate(tiny_values(**{"model.language.path": str(language_model)}))
    bench, folder = Bench(config), tmp_path_factory.mktemp("export")
    save_export(folder, bench.model(config), bench.tokenizer)
    return folder


@pytest.mark.parametrize(
    ("start", "precision", "width"),
    [
        pytest.param("language_model", "fp32", 4, marks=pytest.mark.slow),
        ("language_model", "bf16", 2),
        ("export", "bf16", 2),
    ],
)
def test_each_rank_holds_its_part_and_little_more(request, run_module, start, precision, width):
    ranks = ["--standalone", "--nproc-per-node", RANKS, "-m", "tests.host_memory"]
    folder = request.getfixturevalue(start)
    done = run_module("torch.distributed.run", *ranks, folder, precision, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == RANKS
    for rank in found:
        whole = rank["parameters"] * width
        assert whole / RANKS > ALLOWED, "a whole model must not pass"
        assert rank["made"] < ALLOWED, "its weights are mapped, not read"
        assert rank["cut"] < whole / RANKS + ALLOWED, rank
