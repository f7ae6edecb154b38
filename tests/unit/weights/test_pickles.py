"""A pickle is a program: this reader runs none."""

import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from unigeoseg.errors import UserError
from unigeoseg.weights.checkpoint_file import read_checkpoint
from unigeoseg.weights.mask2former import load_mask2former
from unigeoseg.weights.pickle_file import read_pickle


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_arrays_of_any_protocol_are_read(tmp_path, protocol):
    path = tmp_path / "weights.pkl"
    arrays = OrderedDict(a=np.arange(6, dtype=np.float32).reshape(2, 3), b=np.array(3), c=np.float64(0.5))
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol=protocol))
    read = read_checkpoint(path)
    assert list(read) == ["a", "b", "c"]
    assert torch.equal(read["a"], torch.arange(6.0).view(2, 3))
    assert int(read["b"]) == 3 and float(read["c"]) == 0.5


@pytest.mark.parametrize("where", ["top", "model", "array"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, ours, where, protocol):
    marker = tmp_path / "ran"
    bomb = Runs(os.system, f"touch {marker}")
    content = {
        "top": bomb,
        "model": {"model": {"a": np.zeros(2), "b": bomb}},
        "array": {"model": {"a": np.array([bomb, 1], dtype=object)}},
    }[where]
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(UserError, match="nothing was executed"):
        load_mask2former(ours, path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "call",
    [
        (eval, "1"),
        (exec, "pass"),
        (__import__, "os"),
        (getattr, "text", "upper"),
        (np.load, "x"),
        (np.ndarray, (1 << 40,)),
        (np.dtype, "O"),
        (np.dtype, {"names": ["a"], "formats": ["O"]}),
        (bytearray, 1 << 40),
    ],
)
def test_other_names_and_arguments_are_refused(tmp_path, call):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(Runs(*call), protocol=2))
    with pytest.raises(UserError, match=r"refused|no readable pickle"):
        read_pickle(path)


def test_objects_outside_the_file_are_refused(tmp_path):
    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return "elsewhere" if thing == "x" else None

    buffer = io.BytesIO()
    Pickler(buffer).dump(["x"])
    path = tmp_path / "weights.pkl"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="outside the file"):
        read_pickle(path)


def test_torch_files_are_read_weights_only(tmp_path):
    good, bad, marker = tmp_path / "good.pth", tmp_path / "bad.pth", tmp_path / "ran"
    torch.save({"model": {"a": torch.ones(2)}}, good)
    torch.save({"model": {"a": Runs(os.system, f"touch {marker}")}}, bad)
    assert torch.equal(read_checkpoint(good)["a"], torch.ones(2))
    with pytest.raises(UserError, match="nothing was executed"):
        read_checkpoint(bad)
    assert not marker.exists()
    good.write_bytes(good.read_bytes()[:300])
    with pytest.raises(UserError):
        read_checkpoint(good)


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", pickle.dumps([1, 2]), pickle.dumps({"model": {"a": "b"}})]
)
def test_damaged_or_foreign_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "weights.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pkl"):
        read_checkpoint(path)
