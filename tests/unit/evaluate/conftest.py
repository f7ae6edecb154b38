"""One store, one export and one evaluation for the tests of this folder."""

import pytest

from pipelines.evaluate.evaluate import evaluate_store
from pipelines.evaluate.models import ModelSource
from pipelines.evaluate.worker import EvalJob
from tests.tiny_export import write_export
from tests.tiny_store import write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return str(write_store(tmp_path_factory.mktemp("eval") / "store", images=12, split="val"))


@pytest.fixture(scope="session")
def export(tmp_path_factory):
    return str(write_export(tmp_path_factory.mktemp("eval") / "export"))


@pytest.fixture(scope="session")
def job(store, export):
    source = ModelSource(export)
    return EvalJob(store, "val", source, ModelSource(export, untrained_seed=5), True, True)


@pytest.fixture(scope="session")
def evaluation(job):
    return evaluate_store(job, images=5)
