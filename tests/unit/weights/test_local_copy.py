"""Copies of weights from a store of objects: fetched once, again when overwritten, into a folder of ours."""

import os

import fsspec
import pytest

from pipelines.weights.local_copy import local_copy
from unigeoseg.errors import UserError

WEIGHTS = "memory://weights/model"


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fs = fsspec.filesystem("memory")
    fs.pipe("/weights/model/config.json", b"{}")
    fs.pipe("/weights/model/model.bin", b"first")
    yield tmp_path / f"unigeoseg-weights-{os.getuid()}"
    fs.rm("/weights", recursive=True)


def test_weights_are_fetched_once_and_again_when_they_were_overwritten(monkeypatch):
    fs = fsspec.filesystem("memory")
    first = local_copy(WEIGHTS)
    assert (first / "model.bin").read_bytes() == b"first" and first.name == "model"
    with monkeypatch.context() as patch:
        patch.setattr(type(fs), "get", lambda *_, **__: pytest.fail("fetched again"))
        assert local_copy(WEIGHTS) == first
    fs.pipe("/weights/model/model.bin", b"other")  # the same size
    again = local_copy(WEIGHTS)
    assert again != first and (again / "model.bin").read_bytes() == b"other"
    assert (first / "model.bin").read_bytes() == b"first"  # whoever reads it is not disturbed
    fs.pipe("/weights/model/more.bin", b"1")
    assert (local_copy(WEIGHTS) / "more.bin").read_bytes() == b"1"
    single = local_copy("memory://weights/model/model.bin")
    assert single.read_bytes() == b"other"


def test_a_folder_that_others_may_write_to_is_not_used(temporary, tmp_path):
    temporary.mkdir()
    temporary.chmod(0o777)
    with pytest.raises(UserError, match=r"not a folder of yours alone.*TMPDIR"):
        local_copy(WEIGHTS)
    temporary.rmdir()
    (tmp_path / "elsewhere").mkdir()
    temporary.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="not a folder of yours alone"):
        local_copy(WEIGHTS)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder to somebody else")
def test_a_folder_of_another_user_is_not_used(temporary):
    temporary.mkdir(mode=0o700)
    os.chown(temporary, 12345, 12345)
    with pytest.raises(UserError, match="owner 12345"):
        local_copy(WEIGHTS)


def test_what_is_not_there_is_named():
    with pytest.raises(UserError, match="no weights at memory://weights/none"):
        local_copy("memory://weights/none")
