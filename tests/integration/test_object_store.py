"""Index, reader, plan and stream on an S3 server on loopback: the same as from a folder."""

import os

import pytest

import pipelines.storage.filesystem
from pipelines.build import BuildConfig, build_store
from pipelines.config import Config
from pipelines.storage.filesystem import open_filesystem
from pipelines.storage.retry import Retry
from pipelines.store.index import StoreIndex
from pipelines.store.reader import StoreReader
from pipelines.stream.plain import open_plain_stream
from pipelines.stream.tokenizer import prepare_tokenizer
from tests.tiny_store import write_store
from unigeoseg.errors import UserError

pytestmark = pytest.mark.integration
IMPATIENT = Retry(patience_s=0.3, refused_s=0.05, first_s=0.01, longest_s=0.05)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def remote(local):
    """The store in a bucket of a moto server whose port the system chooses."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "eu-central-1",
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    s3fs.S3FileSystem.clear_instance_cache()
    fs, _ = open_filesystem("s3://geoseg")
    fs.call_s3(
        "create_bucket", Bucket="geoseg", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    fs.put(str(local), "geoseg/stores/tiny", recursive=True)
    yield "s3://geoseg/stores/tiny"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_same_samples_as_from_a_folder(local, remote):
    here, there = StoreIndex.open(str(local)), StoreIndex.open(remote)
    assert there.fingerprint == here.fingerprint
    rows = list(range(0, len(here), 3))
    one, other = StoreReader(here).load(rows), StoreReader(there).load(rows)
    for a, b in zip(one, other, strict=True):
        assert (a.sample_id, a.reason) == (b.sample_id, b.reason)
        assert (a.image == b.image).all()
        assert (a.sample.mask == b.sample.mask).all()


def test_same_stream(local, remote, tmp_path):
    config = Config.model_validate(
        {
            "name": "test",
            "model": {"image_size": 64},
            "tokenizer": {"vocab_size": 300},
            "train": {"global_batch": 4, "steps": 6},
        }
    )
    prepare_tokenizer(config, StoreIndex.open(remote), tmp_path)
    streams = [open_plain_stream(config, path, str(tmp_path), 1, 2) for path in (str(local), remote)]
    ids = [[item.batch.sample_ids for item in stream] for stream in streams]
    assert ids[0] == ids[1]
    assert streams[1].stats.read.requests == streams[0].stats.read.requests


def test_what_is_missing_is_named(remote, local, tmp_path):
    with pytest.raises(UserError, match="no store at s3://geoseg/nothing"):
        StoreIndex.open("s3://geoseg/nothing")
    with pytest.raises(UserError, match="no store at s3://no-such-bucket/x"):
        StoreIndex.open("s3://no-such-bucket/x")
    fs, root = open_filesystem(remote)
    copy = root.replace("tiny", "holed")
    fs.copy(root, copy, recursive=True)
    fs.rm(f"{copy}/shards/train-00001.tar")
    reader = StoreReader(StoreIndex.open(f"s3://{copy}"), IMPATIENT)
    with pytest.raises(UserError, match=r"s3://geoseg/stores/holed/shards/train-00001.tar is missing"):
        reader.load([reader.index.table["shard"].to_pylist().index("shards/train-00001.tar")])


def test_no_server_is_a_clear_error(remote, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    options = pipelines.storage.filesystem._options("s3")
    options["config_kwargs"]["retries"]["max_attempts"] = 1
    monkeypatch.setattr(pipelines.storage.filesystem, "_options", lambda protocol: options)
    # s3fs adds repetitions of its own.
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(
        UserError, match=r"cannot read s3://geoseg/stores/tiny/dataset.json.*AWS_ENDPOINT_URL"
    ):
        StoreIndex.open(remote)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_every_command_on_stores_takes_a_bucket(remote, tmp_path):
    """Merged, checked, looked at and exported there: the same as in folders."""
    import json

    from click.testing import CliRunner

    from jobs.cli import cli

    def run(*arguments):
        done = CliRunner().invoke(cli, ["data", *map(str, arguments)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    fs, bucket = open_filesystem(remote)[0], "s3://geoseg/own"
    for name, scenes in (("a", 2), ("b", 3)):
        config = BuildConfig(
            workers=0, source={"scenes": scenes}, split={"val": 0.0}, instruct={"diversity_quantile": 0.5}
        )
        for out in (tmp_path / name, f"{bucket}/{name}"):
            build_store("synthetic", None, out, config, progress=False, preview=False)
    for place in (tmp_path, bucket):
        run("merge", f"{place}/a", f"{place}/b", "--out", f"{place}/m", "--on-duplicate", "first", "--json")
    for name in ("a", "m"):
        here = {f.relative_to(tmp_path).as_posix(): f.read_bytes() for f in (tmp_path / name).rglob("*.*")}
        found = fs.find(f"geoseg/own/{name}")
        assert {path.removeprefix("geoseg/own/"): fs.cat_file(path) for path in found} == here
        for command in ("info", "lint", "stats"):
            assert json.loads(run(command, f"{bucket}/{name}", "--json")) == json.loads(
                run(command, tmp_path / name, "--json")
            ) | ({"store": f"{bucket}/{name}"} if command == "stats" else {})
    run("stats", f"{bucket}/m", "--out", f"{bucket}/stats")
    run("preview", f"{bucket}/m", "--out", f"{bucket}/sheets")
    run("preview", f"{bucket}/m", "--out", f"{bucket}/one.png", "--task", "referring")
    run("report", f"{bucket}/m", "--out", f"{bucket}/page.html")
    assert len(fs.find("geoseg/own/stats")) == 7 and len(fs.find("geoseg/own/sheets")) >= 3
    assert fs.cat_file("geoseg/own/one.png").startswith(b"\x89PNG")
    assert b"distinct-2" in fs.cat_file("geoseg/own/page.html")
    for form in ("webdataset", "coco", "release-layout"):
        run("export", f"{bucket}/m", "--to", form, "--out", f"{bucket}/{form}")
        run("export", tmp_path / "m", "--to", form, "--out", tmp_path / form)
        here = {f.relative_to(tmp_path).as_posix(): f.read_bytes() for f in (tmp_path / form).rglob("*.*")}
        assert here
        assert {p.removeprefix("geoseg/own/"): fs.cat_file(p) for p in fs.find(f"geoseg/own/{form}")} == here
    fs.rm_file("geoseg/own/m/shards/train-00000.tar")
    broken = CliRunner().invoke(cli, ["data", "lint", f"{bucket}/m", "--json"])
    assert broken.exit_code == 2 and "shard_missing" in broken.stdout
