"""A growing file in an object store: always whole, and long ones send what is new alone."""

import pytest

from cluster.s3 import LocalS3
from pipelines.runs.folder import RunFolder
from pipelines.storage.growing import LEAST

pytestmark = pytest.mark.integration
NAME = "ledger.jsonl"


@pytest.fixture
def run(monkeypatch):
    with LocalS3(bucket="runs") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        folder = RunFolder(f"{server.url}/run")
        yield folder
        folder.close()


@pytest.fixture
def sent(monkeypatch):
    """Bytes of each request that sends some."""
    import s3fs

    found = []

    def counting(real):
        def counted(self, method, *arguments, **named):
            if (body := named.get("Body")) is not None:
                found.append(
                    len(body) if isinstance(body, bytes | bytearray | memoryview) else body.seek(0, 2)
                )
            return real(self, method, *arguments, **named)

        return counted

    for name in ("_call_s3", "call_s3"):  # the second one holds the first as it was
        monkeypatch.setattr(s3fs.S3FileSystem, name, counting(getattr(s3fs.S3FileSystem, name)))
    return found


def stored(run):
    run.fs.invalidate_cache()
    return run.fs.cat_file(f"{run.root}/{NAME}")


def test_what_is_new_goes_up_and_the_object_stays_whole(run, sent):
    path = run.local(NAME)
    path.write_bytes(b"first\n")
    run.publish_growing(NAME)
    assert stored(run) == path.read_bytes()
    line, lines = b"x" * 99 + b"\n", LEAST // 100 + 1
    for count in (lines, 1, 1000, 0, 3):
        with path.open("ab") as file:
            file.write(line * count)
        sent.clear()
        run.publish_growing(NAME)
        assert sum(sent) == (path.stat().st_size if count == lines else 100 * count)
        assert stored(run) == path.read_bytes()


def test_an_object_that_somebody_else_changed_is_sent_whole(run, sent):
    path = run.local(NAME)
    path.write_bytes(b"y" * (LEAST + 7))
    run.publish_growing(NAME)
    run.fs.pipe_file(f"{run.root}/{NAME}", b"other")
    with path.open("ab") as file:
        file.write(b"z")
    run.publish_growing(NAME)
    assert stored(run) == path.read_bytes()


def test_a_store_that_cannot_append_gets_the_whole(run, monkeypatch):
    path = run.local(NAME)
    path.write_bytes(b"y" * (LEAST + 7))
    run.publish_growing(NAME)

    def refused(*arguments, **named):
        raise NotImplementedError("no appending here")

    monkeypatch.setattr(run.fs._files, "open", refused)
    with path.open("ab") as file:
        file.write(b"z")
    run.publish_growing(NAME)
    assert stored(run) == path.read_bytes()
