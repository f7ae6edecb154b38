"""One small untrained model, loaded once."""

import pytest

import unigeoseg
from tests.tiny_export import write_export

#: Side of its windows: overlaps of 16, strides of 48.
SIZE = 64


@pytest.fixture(scope="session")
def export(tmp_path_factory):
    return str(write_export(tmp_path_factory.mktemp("maps") / "export", SIZE))


@pytest.fixture(scope="session")
def segmenter(export):
    return unigeoseg.load(export, "cpu")
