"""What a run survives of its storage: an object store's bad day, a full disk, damaged checkpoints.

``UNIGEOSEG_OUTAGE_SECONDS`` sets how long the object store stays away.
"""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from cluster.s3 import LocalS3
from pipelines.runs.folder import RunFolder
from pipelines.runs.manifest import committed_steps, newest_checkpoint
from pipelines.storage.retry import Retry
from tests.fault_proxy import Fault, FaultProxy
from tests.fault_runs import LONG, assert_same_run, assert_tracked_once, committed, own_database, wait_for
from tests.small_disk import mounted
from tests.train_runs import finish, start

pytestmark = [pytest.mark.integration, pytest.mark.slow]
OUTAGE = float(os.environ.get("UNIGEOSEG_OUTAGE_SECONDS", "60"))


@pytest.fixture
def proxy(monkeypatch):
    """An S3 server with a run's requests sent through bad weather; the variables of the proxy are set."""
    import s3fs

    with LocalS3() as server:
        upstream = server.environment["AWS_ENDPOINT_URL"]
        with FaultProxy(upstream, meets=lambda method, path: "/runs/" in path) as found:
            for name, value in {**server.environment, "AWS_ENDPOINT_URL": found.endpoint}.items():
                monkeypatch.setenv(name, value)
            s3fs.S3FileSystem.clear_instance_cache()
            yield found
            s3fs.S3FileSystem.clear_instance_cache()


class BadDay:
    """Every kind of fault, and from the first request of ``trigger`` on a time without any answer."""

    def __init__(self, trigger: str = "", seconds: float = 0.0) -> None:
        self.trigger, self.seconds, self.began = trigger, seconds, 0.0

    def __call__(self, number: int, path: str) -> Fault | None:
        if self.trigger and self.trigger in path and not self.began:
            self.began = time.monotonic()
        if self.began and time.monotonic() - self.began < self.seconds:
            return Fault(silent=True)
        kinds = {2: Fault(status=503), 5: Fault(silent=True), 7: Fault(status=500), 9: Fault(lost=True)}
        kinds |= {11: Fault(delay_s=0.3), 13: Fault(cut=True)}
        return kinds.get(number % 17)


def _copy(run: RunFolder, to: Path) -> Path:
    for name in ("ledger.jsonl", "metrics.jsonl", "export"):
        run.fetch(name)
    shutil.copytree(run.base, to)
    return to


def test_an_object_store_on_a_bad_day(proxy, undisturbed, tmp_path, tiny_store):
    """Faults of all kinds with an outage while a checkpoint is written; then the job is killed, and resumed
    into an outage that begins as it looks for its checkpoint."""
    url, tracking = "s3://unigeoseg/runs/stormy", f"sqlite:///{tmp_path}/mlflow.db"
    options = {**LONG, "tracking.uri": tracking}
    proxy.change(BadDay("step-00000010/shard", OUTAGE))
    process = start("plain", url, tiny_store, processes=2, **options)
    run = RunFolder(url, Retry(patience_s=2 * OUTAGE))
    try:
        # Looking there is weather as well; the proxy's own view is not.
        wait_for("the outage", lambda: proxy.weather.began, process)
        wait_for("a checkpoint after it", lambda: max(committed_steps(run), default=0) >= 15, process)
    finally:
        process.kill()
    process.wait()
    faults, newest = proxy.faults, committed_steps(run)[-1]
    # What an upload that was cut off leaves: no mark, not all of its files.
    half = f"{run.root}/checkpoints/step-00000039"
    run.fs.pipe_file(f"{half}/shard-00000-of-00002.safetensors", b"half")
    proxy.change(BadDay(f"step-{newest:08d}/", min(OUTAGE, 10.0)))
    output = finish(start("plain", url, tiny_store, processes=2, **options, resume=True))
    assert f"resuming from step {newest} " in output and "damaged" not in output
    assert faults > 20 and proxy.faults > 20
    proxy.change(lambda number, path: None)
    copy = _copy(run, tmp_path / "run")
    assert_same_run(copy, undisturbed)
    assert_tracked_once(tracking, "FINISHED", 40)
    assert newest_checkpoint(run).step == 40 and 39 not in committed_steps(run)
    told = [json.loads(line).get("checkpoint") for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert sum(entry["retries"] for entry in told if entry) > 0
    run.close()


@pytest.fixture
def small_disk(tmp_path):
    with mounted(tmp_path / "disk", 48) as folder:
        yield folder


def test_a_full_disk(small_disk, undisturbed, tmp_path, tiny_store):
    run, ballast = small_disk / "run", small_disk / "ballast"
    options = {**LONG, "tracking.uri": f"sqlite:///{tmp_path}/mlflow.db"}
    process = start("ray", run, tiny_store, **options)
    try:
        wait_for("a checkpoint", lambda: committed(run), process)
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(b"\0" * 65536)
        output = finish(process, code=2)
    finally:
        process.kill()
    assert "No space left on device" in output and "make room" in output and "Traceback" not in output
    ballast.unlink()
    intact = newest_checkpoint(RunFolder(run))
    assert intact is not None and intact.step < 40
    output = finish(start("ray", run, tiny_store, **options, resume=True))
    assert f"resuming from step {intact.step} " in output
    assert_same_run(run, undisturbed)
    assert_tracked_once(options["tracking.uri"], "FINISHED", 40)


def _wrong_manifest(folder):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    next(iter(content["files"].values()))["sha256"] = "0" * 64
    path.write_text(json.dumps(content))


def _no_manifest(folder):
    (folder / "manifest.json").write_text("{")


def _truncated(folder):
    shard = max(folder.glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:-100])


def _changed(folder):
    shard = min(folder.glob("shard-*"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)


def _half(folder):
    (folder / "COMMITTED").unlink()
    min(folder.glob("shard-*")).unlink()


def _file_lost(folder):
    max(folder.glob("shard-*")).unlink()


@pytest.mark.parametrize("damage", [_wrong_manifest, _no_manifest, _truncated, _changed, _half, _file_lost])
def test_a_damaged_newest_checkpoint(undisturbed, tmp_path, tiny_store, damage):
    """Found by every check; for two of them the run is resumed, and ends as if nothing had been."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    shutil.copy(undisturbed.parent / "mlflow.db", tmp_path)
    damage(run / "checkpoints/step-00000040")
    assert newest_checkpoint(RunFolder(run)).step == 35
    if damage not in (_wrong_manifest, _half):
        return
    for name in ("mlflow.json", "status.json"):
        content = (run / name).read_text().replace(str(undisturbed.parent), str(tmp_path))
        (run / name).write_text(content)
    output = finish(start("plain", run, tiny_store, processes=2, **LONG, resume=True))
    assert "resuming from step 35 " in output and ("is damaged" in output) == (damage is not _half)
    assert_same_run(run, undisturbed)
    assert_tracked_once(own_database(run), "FINISHED", 40)
