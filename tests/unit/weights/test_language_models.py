"""Causal language models from Hugging Face folders: Phi and Llama architectures, with their tokenizers."""

import dataclasses
import json

import pytest
import torch
from tokenizers import Tokenizer as Inner
from tokenizers import models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM, PreTrainedTokenizerFast

from pipelines.evaluate.models import ModelSource
from tests.unit.model.conftest import group, tiny_config
from unigeoseg.config import LanguageConfig
from unigeoseg.errors import UserError
from unigeoseg.export import load_export, save_export
from unigeoseg.model import UniGeoSeg
from unigeoseg.modules.language import LanguageModel
from unigeoseg.modules.where import Labelled
from unigeoseg.samples.collate import Collator
from unigeoseg.samples.tokens import load_tokenizer

VOCAB = 280
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}


@pytest.fixture(params=["phi", "llama", "llama_tied"])
def folder(request, tmp_path):
    """A saved model with its byte-level tokenizer; the end token is there, [PAD] and [SEG] are not."""
    torch.manual_seed(3)
    if request.param == "phi":
        model = PhiForCausalLM(PhiConfig(vocab_size=VOCAB, **SIZES))
    else:
        tied = request.param == "llama_tied"
        model = LlamaForCausalLM(
            LlamaConfig(vocab_size=VOCAB, num_key_value_heads=2, tie_word_embeddings=tied, **SIZES)
        )
    path = tmp_path / "causal"
    model.save_pretrained(path)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Inner(models.BPE({"<|endoftext|>": 0} | {c: i + 1 for i, c in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>").save_pretrained(path)
    return path


def load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def test_states_and_loss_are_the_folders_own(folder):
    reference = load(folder)
    language = LanguageModel(LanguageConfig(path=str(folder)), VOCAB).eval()
    assert language.width == 32
    ids = torch.randint(0, VOCAB, (2, 9), generator=torch.Generator().manual_seed(1))
    states = language(language.embed(ids))
    want = reference(ids, output_hidden_states=True, labels=ids)
    torch.testing.assert_close(states, want.hidden_states[-1], rtol=1e-5, atol=1e-5)
    loss = language.loss(states, Labelled.of(ids)).mean()
    torch.testing.assert_close(loss, want.loss, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_new_tokens_grow_the_embedding_and_leave_the_old_rows(folder):
    reference = load(folder)
    language = LanguageModel(LanguageConfig(path=str(folder)), VOCAB + 2)
    rows = language.model.get_input_embeddings().weight
    assert rows.shape[0] == VOCAB + 2
    assert torch.equal(rows[:VOCAB], reference.get_input_embeddings().weight)


def test_the_whole_model_runs_and_its_export_needs_the_folder_no_more(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    assert len({tokenizer.pad_id, tokenizer.seg_id, tokenizer.end_id}) == 3
    config = dataclasses.replace(tiny_config(), language=LanguageConfig(path=str(folder), max_positions=512))
    torch.manual_seed(0)
    model = UniGeoSeg(config, tokenizer.vocab_size)
    batch = Collator(tokenizer, config)([group(1)])
    losses = model(batch, torch.Generator().manual_seed(1))
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.eval()
    save_export(tmp_path / "export", model, tokenizer)
    for file in folder.iterdir():
        file.unlink()
    loaded, again = load_export(tmp_path / "export")
    assert torch.equal(loaded.predict(batch), model.predict(batch))
    save_export(tmp_path / "second", loaded, again)
    assert torch.equal(load_export(tmp_path / "second")[0].predict(batch), model.predict(batch))
    # The yardstick of every evaluation at a run's end: the same architecture with fresh weights.
    fresh, once_more = (ModelSource(str(tmp_path / "export"), untrained_seed=3).load()[0] for _ in range(2))
    assert torch.equal(fresh.predict(batch), once_more.predict(batch))
    assert not torch.equal(fresh.predict(batch), model.predict(batch))


def test_folders_that_do_not_fit_are_refused(folder, tmp_path):
    def build(path):
        return LanguageModel(LanguageConfig(path=str(path)), VOCAB)

    with pytest.raises(UserError, match=r"no config\.json"):
        build(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"no config\.json"):
        build("microsoft/phi-1_5")  # a name is no folder: nothing is downloaded
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match="weights missing"):
        build(folder)
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(UserError, match="unexpected"):
        build(folder)
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(UserError):
        build(folder)
    (folder / "config.json").write_text(json.dumps(config))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(UserError, match="no loadable"):
        build(folder)
    weights.unlink()
    with pytest.raises(UserError, match="no loadable"):
        build(folder)
