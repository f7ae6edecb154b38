"""Weights from a model hub, through the public command, against a hub on loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

from pipelines.weights.hub import HubReference
from tests.hub_server import hub_server
from tests.train_runs import ROOT
from unigeoseg.errors import UserError

LITE = "timm/tf_efficientnet_lite0.in1k"


@pytest.fixture(scope="module")
def content():
    torch.manual_seed(0)
    weights = save(timm.create_model("tf_efficientnet_lite0").state_dict())
    return {LITE: {"model.safetensors": weights, "config.json": b"{}", "model.onnx": b"x" * 10}}


@pytest.fixture
def hub(content):
    with hub_server(content) as served:
        yield served


#: The command, without the pauses that ``huggingface_hub`` makes before it asks again.
_AT_ONCE = "import time; time.sleep = lambda seconds: None; from jobs.cli import main; main()"


@pytest.fixture
def call(hub, tmp_path):
    """The command with its own cache; ``more`` goes over the environment."""

    def run(*words, **more):
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")}
        environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_ETAG_TIMEOUT": "5"}
        environment |= {"HF_HUB_DOWNLOAD_TIMEOUT": "2", **more}
        return subprocess.run(
            [sys.executable, "-c", _AT_ONCE, *words],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
            timeout=120,
        )

    return run


def _row(done):
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["weights"]
    return row


def test_a_file_is_fetched_once_checked_and_found_again_without_network(hub, content, call):
    row = _row(call("weights", "fetch", "efficientnet-lite0", "--json"))
    expected = content[LITE]["model.safetensors"]
    assert Path(row["path"]).read_bytes() == expected
    assert row["bytes"] == len(expected) and row["sha256"] == hub.sha256(expected)
    assert (row["licence"] == "Apache-2.0" and row["path"] in row["use"]) or "hf://" in row["use"]
    bodies = [one for one in hub.asked if one.startswith("GET") and "/resolve/" in one]
    assert len(bodies) == 1
    again = _row(call("weights", "fetch", "efficientnet-lite0", "--json"))
    assert again["path"] == row["path"]
    assert [one for one in hub.asked if one.startswith("GET") and "/resolve/" in one] == bodies
    offline = call("weights", "fetch", "efficientnet-lite0", "--json", HF_HUB_OFFLINE="1")
    assert _row(offline)["path"] == row["path"] and "was not compared" in offline.stderr
    listed = call("weights", "list", "--json", HF_HUB_OFFLINE="1")
    here = {r["name"]: r["path"] for r in json.loads(listed.stdout)["weights"]}
    assert here["efficientnet-lite0"] == row["path"] and here["phi-1.5"] is None


def test_a_repository_comes_without_other_frameworks_copies(hub, call):
    row = _row(call("weights", "fetch", f"hf://{LITE}", "--json"))
    assert sorted(p.name for p in Path(row["path"]).iterdir()) == ["config.json", "model.safetensors"]


def test_what_broke_off_goes_on(hub, content, call):
    hub.break_after = 1_000_000
    row = _row(call("weights", "fetch", "efficientnet-lite0", "--json"))
    assert Path(row["path"]).read_bytes() == content[LITE]["model.safetensors"]
    assert hub.break_after is None


def test_a_model_is_built_on_weights_by_reference(hub, call, tmp_path):
    code = (
        "import torch\n"
        "from pipelines.config import Config\n"
        "from pipelines.models.job_model import make_model\n"
        "from tests.train_runs import tiny_values\n"
        "class Words: vocab_size = 320\n"
        "config = Config.model_validate(tiny_values(**{'model.vision.backbone': 'tf_efficientnet_lite0',"
        f" 'init.vision': 'hf://{LITE}@main/model.safetensors'}}))\n"
        "model, (report,) = make_model(config, Words())\n"
        "stem = model.vision.backbone.conv_stem.weight\n"
        "print(len(report.loaded), len(report.missing), stem.sum().item())\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")}
    environment["HF_HUB_DISABLE_XET"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    loaded, missing, total = done.stdout.split()
    torch.manual_seed(0)
    expected = timm.create_model("tf_efficientnet_lite0").conv_stem.weight.detach().sum()
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    assert int(loaded) > 200 and int(missing) == 0


def test_a_checksum_that_differs_is_told(hub, call):
    hub.lie = True
    done = call("weights", "fetch", "efficientnet-lite0")
    assert done.returncode == 2 and "the hub says" in done.stderr and "delete it" in done.stderr


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("hf://timm/absent", "no such repository"),
        (f"hf://{LITE}@old/model.safetensors", "has no revision old"),
        (f"hf://{LITE}/absent.safetensors", "has no file absent.safetensors"),
        ("efficientnet-lite9", "did you mean efficientnet-lite0"),
        ("hf://timm", "hf://ORG/NAME"),
    ],
)
def test_what_is_not_there_is_told_by_name(hub, call, reference, words):
    done = call("weights", "fetch", reference)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr


def test_without_network_the_way_by_hand_is_told(call):
    done = call("weights", "fetch", "efficientnet-lite0", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 2 and "by hand" in done.stderr and "HF_ENDPOINT" in done.stderr
    done = call("weights", "fetch", "efficientnet-lite0", HF_HUB_OFFLINE="1")
    assert done.returncode == 2 and "by hand" in done.stderr


def test_references_are_read_and_written():
    for text in ("hf://a/b", "hf://a/b@v1", "hf://a/b@v1/c/d.bin", "hf://a/b.c/d"):
        assert str(HubReference.parse(text)) == text
    with pytest.raises(UserError):
        HubReference.parse("hf://a/b@/x")
