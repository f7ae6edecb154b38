"""A checkpoint of other sizes than the recorded one: nothing may be a constant of that one."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pipelines.models.initial import adopt
from pipelines.train.checkpoints.model_export import convert_model
from tests.unit.model.conftest import group
from unigeoseg.build import build_model
from unigeoseg.config import (
    ConnectorConfig,
    DecoderConfig,
    LanguageConfig,
    LKMConfig,
    ModelConfig,
    TATEConfig,
    VisionConfig,
)
from unigeoseg.errors import UserError
from unigeoseg.export import load_export
from unigeoseg.released.folder import load_released, save_released
from unigeoseg.samples.collate import Collator
from unigeoseg.samples.released_tokenizer import load_released_tokenizer
from unigeoseg.weights.released_file import load_released_weights

CONFIG = ModelConfig(
    mode="released",
    image_size=512,
    system_prompt="You see from above.",
    vision=VisionConfig(
        embed_dim=12, depths=(1, 1, 3, 1), heads=(1, 2, 3, 6), window=7, frozen=True, padded_windows=True
    ),
    connector=ConnectorConfig(stride=2),
    tate=TATEConfig(reasoning_queries=3),
    lkm=LKMConfig(slots=5),
    language=LanguageConfig(
        hidden_size=72, layers=3, heads=6, intermediate_size=100, max_positions=512, head_bias=False
    ),
    decoder=DecoderConfig(
        hidden=64, heads=8, pixel_layers=2, pixel_ffn=40, mask_layers=4, mask_ffn=48, query_width=64
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer as SegEarth-R1's training leaves it: [PAD] and [SEG] were added at the end."""
    folder = tmp_path_factory.mktemp("checkpoint")
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(["Sure, It is the large building near the road"] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")
    fast.add_special_tokens({"pad_token": "[PAD]"})
    fast.add_tokens("[SEG]")
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder):
    torch.manual_seed(3)
    tokenizer = load_released_tokenizer(folder)
    model = build_model(CONFIG, tokenizer.vocab_size)
    save_released(folder, model.state_dict(), CONFIG, tokenizer)
    return folder, model.eval()


def test_added_tokens_have_their_ids(folder):
    tokenizer = load_released_tokenizer(folder)
    size = tokenizer.vocab_size
    assert {tokenizer.pad_id, tokenizer.seg_id} == {size - 2, size - 1}
    assert tokenizer.end_id == 0
    assert tokenizer.seg_id not in tokenizer.encode("the [SEG] of [PAD]")


def test_it_predicts_what_it_was_saved_from(checkpoint):
    folder, model = checkpoint
    loaded, tokenizer, _ = load_released(folder)
    config = dataclasses.replace(loaded.config, system_prompt=CONFIG.system_prompt)
    assert dataclasses.replace(config.language, embedding_rows=0) == CONFIG.language
    assert dataclasses.replace(config, language=CONFIG.language, loss=CONFIG.loss) == CONFIG
    batch = Collator(tokenizer, config)([group(0, height=300, width=200)])
    assert int(batch.image_mask.sum(1)[0]) == 64
    with torch.no_grad():
        assert torch.equal(loaded.predict(batch), model.predict(batch))
        predictions, _ = loaded._run(batch)
    assert predictions.shape == (5, 4, 128, 128)


def test_it_goes_through_our_export_and_back(checkpoint, tmp_path):
    folder, _ = checkpoint
    convert_model(folder, "unigeoseg", tmp_path / "ours")
    convert_model(tmp_path / "ours", "released", tmp_path / "back")
    first, second = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "back"))
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    ids = [(t.pad_id, t.seg_id, t.end_id) for t in map(load_released_tokenizer, (folder, tmp_path / "back"))]
    assert ids[0] == ids[1]


def test_another_configuration_takes_its_sizes_and_weights(checkpoint):
    folder, model = checkpoint
    paper = ModelConfig(vision=VisionConfig(frozen=False), lkm=LKMConfig(task_of="own"))
    adopted = adopt(paper, load_export(folder)[0].config)
    assert (adopted.mode, adopted.image_size, adopted.lkm) == ("released", 512, LKMConfig(5, task_of="own"))
    assert not adopted.vision.frozen and adopted.loss == paper.loss
    fresh = build_model(adopted, 0)
    report = load_released_weights(fresh, folder)
    assert not report.missing and not report.unexpected and "seg_query" in report.unused
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in fresh.state_dict().items())


def test_a_checkpoint_of_other_sizes_than_the_model_is_refused(checkpoint):
    wider = dataclasses.replace(CONFIG, language=dataclasses.replace(CONFIG.language, intermediate_size=104))
    with pytest.raises(UserError, match=r"for a model of other sizes, 9 tensors differ"):
        load_released_weights(build_model(wider, 289), checkpoint[0])


def test_heads_that_no_tensor_shows_must_be_named(checkpoint, tmp_path):
    folder, _ = checkpoint
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    save_file(load_file(folder / "model.safetensors"), tmp_path / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in content.items() if "heads" not in k}))
    with pytest.raises(UserError, match="lacks num_attention_heads"):
        load_released(tmp_path)
