"""Training runs that several files of tests compare with; each is made once, when it is first asked for."""

import pytest

from tests.fault_runs import LONG
from tests.tiny_store import write_store
from tests.train_runs import finish, start


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, tiny_store):
    """Two processes under torchrun that nothing happens to."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(start("plain", run, tiny_store, processes=2, **LONG))
    return run
