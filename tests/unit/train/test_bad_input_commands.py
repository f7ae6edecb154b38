"""``train`` and ``resume`` refuse what cannot work before any process of the training starts."""

import os

import pytest
import yaml

from cluster.s3 import LocalS3
from pipelines.config import Config
from pipelines.plan.plan import Plan
from pipelines.runs.folder import RunFolder
from pipelines.runs.status import KILLED, write_status
from pipelines.storage.lease import held
from pipelines.store.index import StoreIndex
from pipelines.train.driver.prepare import prepare_run
from tests.fault_proxy import Fault, FaultProxy
from tests.tiny_store import write_store
from tests.train_runs import tiny_values
from tests.unit.test_cli_errors import check, here


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A preset, a store, and the folder of a run that was killed before its first checkpoint."""
    folder = tmp_path_factory.mktemp("place")
    values = tiny_values()
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    store = write_store(folder / "store")
    config, index = Config.model_validate(values), StoreIndex.open(str(store))
    run = RunFolder(folder / "run")
    prepare_run(config, run, resume=False)
    (folder / "run/ledger.jsonl").write_text('{"step": 0, "position": 0, "sample_ids": []}\n')
    write_status(
        run,
        state=KILLED,
        store=str(store),
        dataset_fingerprint=index.fingerprint,
        plan_fingerprint=Plan.from_config(index, config).fingerprint,
    )
    return folder


@pytest.fixture
def train(place, capfd):
    """Runs ``unigeoseg train`` in the place, and checks how it ends."""

    def run(*arguments, parts, store="store", folder="run"):
        common = ("--preset", place / "tiny.yaml", "--store", place / store, "--no-evaluate")
        done = here(capfd, "train", *map(str, (*common, "--run", place / folder, *arguments)))
        check(done, 2, *parts)
        assert len(done.stderr.strip().splitlines()) <= 2 + done.stderr.count("  train.")

    return run


def test_an_unknown_compiler_is_refused_before_anything_starts(train):
    sets = ("--set", "train.compile=true", "--set", "train.compile_backend=inducter")
    train(*sets, folder="compiled", parts=("train.compile_backend=inducter", "did you mean inductor?"))


def test_another_configuration_is_refused_by_its_keys(train):
    train(
        *("--resume", "--set", "train.lr=0.5", "--set", "seed=3"),
        parts=("train.lr: 0.001 -> 0.5", "seed: 0 -> 3", "--allow-config-change train.lr"),
    )


def test_a_change_that_makes_another_plan_is_refused_though_allowed(train):
    train(
        *("--resume", "--set", "train.steps=9", "--allow-config-change", "train.steps"),
        parts=("trained on another plan", "start a new run with --run"),
    )


def test_an_allowed_key_that_there_is_none_of(train):
    train(*("--resume", "--allow-config-change", "train.lrr"), parts=("did you mean train.lr?",))


def test_another_store_is_refused(train, place):
    write_store(place / "other", images=25)
    train("--resume", store="other", parts=("trained on another store", str(place / "store")))


def test_a_run_is_not_overwritten_and_none_is_not_resumed(train):
    train(parts=("holds a run already", "--resume"))
    train("--resume", folder="nowhere", parts=("no run to resume",))


def test_two_jobs_in_one_run_folder(train, place):
    with held(RunFolder(place / "run"), 60):
        train("--resume", parts=(f"in use by process {os.getpid()}", "a job that crashed frees it"))


def test_a_folder_that_cannot_be_written(train, place):
    train(folder="/proc/unigeoseg-run", parts=("cannot write to the run folder /proc/unigeoseg-run",))
    (place / "file").write_text("")
    train(folder="file/run", parts=("cannot write to the run folder",))


def test_an_object_store_that_takes_no_writes(place, capfd, monkeypatch):
    import s3fs

    with LocalS3() as server:
        refusal = {
            "weather": lambda number, path: Fault(status=403),
            "meets": lambda method, path: method == "PUT",
        }
        with FaultProxy(server.environment["AWS_ENDPOINT_URL"], **refusal) as proxy:
            for name, value in {**server.environment, "AWS_ENDPOINT_URL": proxy.endpoint}.items():
                monkeypatch.setenv(name, value)
            s3fs.S3FileSystem.clear_instance_cache()
            run = f"{server.url}/runs/new"
            done = here(
                capfd,
                *("train", "--preset", str(place / "tiny.yaml"), "--store", str(place / "store")),
                *("--no-evaluate", "--run", run),
            )
            s3fs.S3FileSystem.clear_instance_cache()
    check(done, 2, f"cannot write to the run folder {run}", "the credentials and AWS_ENDPOINT_URL")
    assert proxy.faults


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("engine.zero_stage=0", "engine.offload_optimizer=true"), ("use engine.zero_stage=1, 2 or 3",)),
        (("engine.zero_stage=5",), ("engine.zero_stage=5", "0, 1, 2 or 3")),
        (("scale.workers=3",), ("cannot be split over scale.workers=3; use 3 or 6",)),
        (("scale.workers=2", "train.micro_batch=3"), ("use one of [1, 2]",)),
        (("scale.workers=2", "scale.min_workers=4"), ("scale.min_workers=4 is more than scale.workers=2",)),
    ],
)
def test_a_stage_or_a_split_that_cannot_be(train, changes, parts):
    train(*(text for change in changes for text in ("--set", change)), folder="new", parts=parts)


def test_resume_of_what_is_no_run(place, capfd):
    check(here(capfd, "resume", str(place / "nowhere")), 2, "there is no run at", "unigeoseg runs")
