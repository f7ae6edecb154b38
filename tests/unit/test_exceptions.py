"""Exceptions cross process borders: Ray and multiprocessing send them by their arguments."""

import ast
import pickle
from pathlib import Path

import pytest

from pipelines.build.endpoint.client import NoAnswer
from pipelines.pictures.errors import UnusableImage
from pipelines.store.record import BadRecord
from pipelines.web.backend import Busy
from unigeoseg.samples.collate import BadSample

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "error",
    [
        BadSample("too_long", "s/1", "300 tokens"),
        BadRecord("mask_size", "3 x 4"),
        NoAnswer("refused"),
        UnusableImage("unreadable_image", "a.png", "repair it"),
        Busy(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_it_was(error):
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error) and str(there) == str(error)
    assert {k: v for k, v in vars(there).items() if k[0] != "_"} == {
        k: v for k, v in vars(error).items() if k[0] != "_"
    }


def test_each_exception_with_arguments_of_its_own_says_how_it_is_sent():
    silent = []
    for package in ("unigeoseg", "pipelines", "jobs", "cluster"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.ClassDef):
                    continue
                bases = {ast.unparse(base) for base in node.bases}
                methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                if any(base.endswith(("Error", "Exception")) for base in bases) and "__init__" in methods:
                    silent += [] if "__reduce__" in methods else [f"{path.name}: {node.name}"]
    assert silent == []
