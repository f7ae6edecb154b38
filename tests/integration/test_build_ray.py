"""Construction through Ray Data: the same bytes whatever the number of workers."""

import hashlib
import threading
import time

import pytest

from pipelines.build import BuildConfig, build_store, runner
from pipelines.cluster_view import ending
from unigeoseg.errors import UserError

pytestmark = pytest.mark.integration


def build(out, workers, source="synthetic", root=None, **options):
    options = options or {"scenes": 14} if source == "synthetic" else options
    config = BuildConfig(workers=workers, block_images=4, source=options)
    build_store(source, root, out, config, progress=False, preview=False)
    files = [f for f in sorted(out.rglob("*")) if f.is_file()]
    return {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_nothing_of_a_dataset_outlives_ray(monkeypatch):
    """A thread that asks Ray for something after its end takes the whole process along, without a word."""
    import ray

    at_end = []
    shutdown = ray.shutdown

    def ended():
        at_end.extend(t.name for t in threading.enumerate() if ending._of_ray_data(t))
        shutdown()

    monkeypatch.setattr(ray, "shutdown", ended)

    def work(number):
        time.sleep(0.2)
        if number == 3:
            raise UserError("the third")
        return {"is": number}

    with pytest.raises(UserError, match="the third"), runner.open_runner(2) as run:
        for _ in run(work, range(30)):
            met = [t.name for t in threading.enumerate() if ending._of_ray_data(t)]
    assert met and at_end == []
    with pytest.raises(KeyError), runner.open_runner(2) as run:
        for number, _ in run(lambda number: {"is": number}, range(30)):
            raise KeyError(number)
    assert at_end == [] and not ray.is_initialized()


@pytest.fixture(scope="module")
def cluster():
    """One for all that follow: a build joins what its process is connected to."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_one_and_two_workers_write_what_one_process_writes(cluster, tmp_path):
    alone = build(tmp_path / "0", 0)
    assert build(tmp_path / "1", 1) == alone
    assert build(tmp_path / "2", 2) == alone


def test_an_error_of_a_worker_is_the_users_message(cluster, tmp_path):
    from tests.unit.build.test_dubai import write_pair

    write_pair(tmp_path / "in", 1, 1, change=lambda mask: mask[:90].fill(7))
    with pytest.raises(UserError, match=r"colour \(7, 7, 7\)"):
        build_store("dubai", tmp_path / "in", tmp_path / "out", BuildConfig(workers=1), progress=False)


def test_no_more_parts_are_made_than_a_round_has(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_ROUND", 3)
    monkeypatch.setattr(runner, "_TURNS", 1)
    made, done, most = [], [], 0

    def part(number):
        nonlocal most
        made.append(number)
        most = max(most, len(made) - len(done))
        return number + 1

    with runner.open_runner(2) as run:
        for number, found in run(lambda one: {"is": one}, range(8), part):
            done.append((number, found["is"]))
    assert sorted(done) == [(n, n + 1) for n in range(8)] and most <= 3
