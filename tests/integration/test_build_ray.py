"""Construction through Ray Data: the same bytes whatever the number of workers."""

import hashlib

import pytest

from pipelines.build import BuildConfig, build_store
from unigeoseg.errors import UserError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def ray_here():
    """One Ray for all: a build takes what runs in its process, and its workers limit the tasks."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def build(out, workers, **source):
    config = BuildConfig(workers=workers, block_images=4, source={"scenes": 14} | source)
    build_store("synthetic", None, out, config, progress=False, preview=False)
    files = [f for f in sorted(out.rglob("*")) if f.is_file()]
    return {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_one_and_two_workers_write_what_one_process_writes(tmp_path):
    alone = build(tmp_path / "0", 0)
    assert build(tmp_path / "1", 1) == alone
    assert build(tmp_path / "2", 2) == alone


def test_an_error_of_a_worker_is_the_users_message(tmp_path):
    import ray

    from tests.unit.build.test_dubai import write_pair

    write_pair(tmp_path / "in", 1, 1, change=lambda mask: mask[:90].fill(7))
    with pytest.raises(UserError, match=r"colour \(7, 7, 7\)"):
        build_store("dubai", tmp_path / "in", tmp_path / "out", BuildConfig(workers=1), progress=False)
    assert ray.is_initialized()  # what was there before stays
