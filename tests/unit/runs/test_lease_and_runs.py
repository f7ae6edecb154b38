"""Who holds a run, what its state is, and which settings may change."""

import json
import re
import subprocess
import sys
import time
from dataclasses import asdict

import psutil
import pytest

from cluster.s3 import LocalS3
from pipelines.cluster_view.session import shortage
from pipelines.config import Config
from pipelines.runs.folder import RunFolder
from pipelines.runs.job import Job
from pipelines.runs.listing import list_runs
from pipelines.runs.status import recorded, write_status
from pipelines.storage.lease import LEASE, Hold, Holder, LeaseLostError, check_held, held, holder_of
from pipelines.tracking.tracker import TrackingRun
from pipelines.train.driver.prepare import check_same
from pipelines.train.driver.summary import write_summary
from tests.train_runs import tiny_values
from unigeoseg.errors import UserError


@pytest.fixture(scope="module")
def s3():
    import s3fs

    with LocalS3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["folder", "s3"])
def run(request, tmp_path):
    if request.param == "folder":
        (tmp_path / "run").mkdir()
        return RunFolder(tmp_path / "run")
    return RunFolder(f"{request.getfixturevalue('s3').url}/runs/{tmp_path.name}")


def _leave(run, **changes):
    own = psutil.Process()
    values = {
        "token": "other",
        "host": "elsewhere",
        "place": "elsewhere",
        "pid": own.pid,
        "born": own.create_time(),
        "beat": time.time(),
        "seconds": 60.0,
    }
    run.fs.pipe_file(f"{run.root}/{LEASE}", json.dumps(asdict(Holder(**{**values, **changes}))).encode())


def test_one_job_at_a_time(run):
    with held(run, 60) as lease:
        check_held(run, lease.token)
        with pytest.raises(UserError, match=rf"in use by process {psutil.Process().pid}"), held(run, 60):
            pass
    assert holder_of(run) is None


def test_a_job_on_another_machine_holds_until_its_time_is_up(run):
    _leave(run)
    with pytest.raises(UserError, match="on elsewhere"), held(run, 60):
        pass
    _leave(run, beat=time.time() - 61)
    with held(run, 60) as lease:
        _leave(run, token="third")
        with pytest.raises(LeaseLostError, match="not this job's"):
            check_held(run, lease.token)
    assert holder_of(run).token == "third"


def test_a_renewal_that_comes_late_leaves_the_successors_lease(run):
    """The holder looked, stood still while another took over, and goes on to write."""
    with held(run, 60) as lease:
        lease._write()
        assert holder_of(run).token == lease.token
        run.fs.rm_file(f"{run.root}/{LEASE}")
        with held(run, 60) as successor:
            if run.remote:
                with pytest.raises(LeaseLostError, match="not this job's"):
                    lease._write()
            else:
                lease._write()
            assert holder_of(run).token == successor.token


def test_a_renewal_whose_answer_was_lost_is_repeated(run):
    with held(run, 60) as lease:
        if run.remote:
            lease._etag = '"of the content before"'
            lease._write()
            assert lease._etag is None
        before = holder_of(run).beat
        lease._write()
        assert holder_of(run).beat > before and holder_of(run).token == lease.token


def test_a_job_that_lost_its_run_writes_nothing_more(run, monkeypatch):
    ended = []
    monkeypatch.setattr("pipelines.runs.status.end_run", lambda *a: ended.append(a))
    tracking = TrackingRun("sqlite:///none", "e", "n", {}, {}, run_id="1")
    job = Job(Config.model_validate(tiny_values()), "store", run.path, None, "", "", tracking)
    with pytest.raises(LeaseLostError), held(run, 60) as lease:
        run.hold = Hold(run, lease.token)
        with recorded(run, job, "", 10):
            run.publish("status.json")
            run.fs.rm_file(f"{run.root}/{LEASE}")
            _leave(run)
            theirs = json.dumps({"state": "running", "pid": 7}).encode()
            run.fs.pipe_file(f"{run.root}/status.json", theirs)
            run.hold._until = 0.0  # as long after as it takes another machine to take over
            for write in (lambda: run.publish("x"), lambda: write_summary(run, {})):
                with pytest.raises(LeaseLostError):
                    write()
    assert run.fs.cat_file(f"{run.root}/status.json") == theirs and not ended
    assert not run.exists("summary.json") and not run.exists("mlflow.json")


def test_a_writer_on_an_object_store_looks_again_before_another_could_have_taken_over(run):
    with held(run, 60) as lease:
        hold = Hold(run, lease.token)
        hold.check()
        _leave(run, token="third")
        if not run.remote:
            with pytest.raises(LeaseLostError):
                hold.check()
            return
        hold.check()  # no other request within the lease's time
        assert 0 < hold._until - time.time() < 60
        hold._until = time.time()
        with pytest.raises(LeaseLostError):
            hold.check()


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    code = (
        "import os, sys; from pipelines.storage.lease import Lease; from pipelines.runs.folder import "
        "RunFolder; Lease(RunFolder(sys.argv[1]), 3600); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    assert (folder / LEASE).exists()
    with held(RunFolder(folder), 60):
        pass


def test_runs_tells_the_state(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("name: x\n")
    run = RunFolder(tmp_path / "a")
    write_status(run, state="running", steps=10)
    (tmp_path / "a/metrics.jsonl").write_text(json.dumps({"step": 3, "loss": 2.0, "time": 1.0}) + "\n")
    with held(run, 60):
        (first, second) = list_runs(str(tmp_path))
        assert (first.name, first.state, first.step, first.steps) == ("a", "running", 4, 10)
        assert first.best == {"name": "loss", "value": 2.0} and second.state == "unknown"
    assert list_runs(str(tmp_path))[0].state == "killed"
    with pytest.raises(UserError, match="there is no folder"):
        list_runs(str(tmp_path / "none"))


def test_an_allowed_change_is_named():
    before, after = (Config.model_validate(tiny_values(**{"train.lr": x})).plain() for x in (0.1, 0.2))
    with pytest.raises(UserError, match=r"--allow-config-change train\.lr"):
        check_same(before, after, "run")
    check_same(before, after, "run", ["train.lr"])
    check_same(before, after, "run", ["train"])
    with pytest.raises(UserError, match=r"did you mean train\.lr\?"):
        check_same(before, after, "run", ["train.lrr"])


def test_an_elastic_range_has_only_sizes_that_divide_the_batch():
    values = tiny_values(**{"train.global_batch": 16, "scale.workers": 8, "scale.min_workers": 1})
    assert Config.model_validate(values).world_sizes() == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("nodes", "could", "says", "bearable"),
    [
        ([{"CPU": 2}, {"CPU": 2}], None, None, False),
        (
            [{"CPU": 2}],
            None,
            r"asks for 4 \(2 workers of 2 CPU\), the cluster has 2 and no autoscaler",
            False,
        ),
        ([{"CPU": 2}], False, "no node groups that could bring what is missing", False),
        ([{"CPU": 2}], True, "waiting for the autoscaler, which can bring", True),
        ([{"CPU": 1}] * 4, None, "the 4 nodes have room for 0", False),
        ([{"CPU": 1}] * 4, True, "room for 0; waiting for the autoscaler", True),
    ],
)
def test_what_a_cluster_lacks_is_said(nodes, could, says, bearable):
    config = Config.model_validate(tiny_values(**{"scale.workers": 2, "scale.cpus_per_worker": 2}))
    asked = []
    found = shortage(config, nodes, lambda bundles: asked.append(bundles) or could)
    if says is None:
        assert found is None and not asked
    else:
        assert re.search(says, found.text) and found.bearable is bearable
        assert asked == [[{"CPU": 2.0}] * 2]
