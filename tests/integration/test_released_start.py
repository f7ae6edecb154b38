"""Training that starts from a released checkpoint in an object store, and gives one back."""

import json

import pytest
import torch
from safetensors.torch import load_file

from cluster.s3 import LocalS3
from pipelines.storage.filesystem import open_filesystem
from pipelines.train.checkpoints.model_export import convert_model
from tests.tiny_store import write_store
from tests.train_runs import finish, start
from unigeoseg.build import build_model
from unigeoseg.config import ConnectorConfig, DecoderConfig, LanguageConfig, ModelConfig, VisionConfig
from unigeoseg.released.folder import load_released, save_released
from unigeoseg.released.layout import entries
from unigeoseg.samples.released_tokenizer import load_released_tokenizer
from unigeoseg.samples.tokens import train_tokenizer

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]
CONFIG = ModelConfig(
    mode="released",
    image_size=96,
    vision=VisionConfig(embed_dim=16, depths=(1, 1, 2, 1), heads=(1, 2, 4, 4), window=3, padded_windows=True),
    connector=ConnectorConfig(stride=2),
    language=LanguageConfig(
        hidden_size=48, layers=2, heads=3, intermediate_size=64, max_positions=512, head_bias=False
    ),
    decoder=DecoderConfig(
        hidden=32, heads=8, pixel_layers=1, pixel_ffn=32, mask_layers=2, mask_ffn=32, query_width=32
    ),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    train_tokenizer(["Sure, It is the large building near the road"] * 2, 320, folder)
    torch.manual_seed(0)
    tokenizer = load_released_tokenizer(folder)
    model = build_model(CONFIG, tokenizer.vocab_size)
    unused = {e.released: torch.randn(e.shape) for e in entries(CONFIG) if e.kind == "unused"}
    save_released(folder, model.state_dict(), CONFIG, tokenizer, unused)
    return folder


def test_from_s3_to_a_released_checkpoint(checkpoint, tmp_path, monkeypatch):
    store = write_store(tmp_path / "store", size=80)
    options = {"train.steps": 2, "checkpoint.every": 2, "train.log_every": 1, "tokenizer.max_length": 400}
    with LocalS3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TMPDIR", str(tmp_path))  # what is fetched stays with the test
        url = f"{server.url}/checkpoints/released"
        filesystem, inside = open_filesystem(url)
        filesystem.put(f"{checkpoint}/", f"{inside}/", recursive=True)
        run = tmp_path / "run"
        finish(start("plain", run, store, **{"init.model": url, "model.vision.frozen": True}, **options))
        resumed = {"init.model": url, "model.vision.frozen": True, **options, "resume": True}
        finish(start("plain", run, store, **resumed))
    report = json.loads((run / "weights.json").read_text())[0]
    assert report["form"] == "released checkpoint"
    assert report["counts"]["missing"] == report["counts"]["unexpected"] == 0
    assert report["counts"]["loaded"] == len(load_released(checkpoint)[0].state_dict())
    convert_model(run / "export", "released", tmp_path / "back")
    before, after = (load_file(f / "model.safetensors") for f in (checkpoint, tmp_path / "back"))
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    unused = {e.released for e in entries(CONFIG) if e.kind == "unused"}
    assert "text_projector.weight" in changed and "model.embed_tokens.weight" in changed
    assert not any(name in unused or "vision_tower" in name for name in changed)
