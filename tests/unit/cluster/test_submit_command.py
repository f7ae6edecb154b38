"""``unigeoseg submit`` and ``cluster``, called as a user would: what is refused, and why."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jobs.cli import cli, run
from jobs.submit import _command

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def refused(capfd):
    """Runs a command that must end with code 2 and one line; returns the line."""

    def call(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            run(cli, [str(part) for part in arguments])
        found = capfd.readouterr()
        assert caught.value.code == 2, found.err
        assert "Traceback" not in found.err and len(found.err.strip().splitlines()) == 1, found.err
        return found.err

    return call


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A clean checkout, and this process in it, with no cluster around."""
    for name in (
        "RAY_API_SERVER_ADDRESS",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "UNIGEOSEG_CLUSTER_STATE",
    ):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "project"
    root.mkdir()
    (root / "pyproject.toml").write_text("[project]\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], cwd=root, check=True)
    monkeypatch.chdir(root)
    return root


def test_a_head_that_is_not_reachable(project, refused):
    said = refused("submit", "--address", NOBODY, "train", "--run", "s3://b/r")
    assert f"no Ray job server answers at {NOBODY}" in said and "unigeoseg cluster up" in said


def test_no_cluster_at_all(project, refused):
    assert "no cluster to submit to" in refused("submit", "train")
    assert "no cluster is written down" in refused("cluster", "down")


def test_a_tree_that_no_commit_describes(project, refused):
    (project / "new.py").write_text("x")
    assert "new.py" in (said := refused("submit", "--address", NOBODY, "train")) and "--allow-dirty" in said


def test_a_huge_tree(project, refused):
    (project / "weights.bin").write_bytes(bytes(2**20))
    said = refused("submit", "--address", NOBODY, "--max-mib", 0.5, "--allow-dirty", "train")
    assert "weights.bin (1.0 MiB)" in said and "0.5 MiB allowed" in said


def test_an_expired_token(project, refused, monkeypatch):
    """A server that answers as Ray's dashboard answers a token that it does not know."""

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401 if "Authorization" not in self.headers else 403)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        monkeypatch.setenv("RAY_AUTH_TOKEN", "old-token")
        said = refused("submit", "--address", address, "train", "--run", "s3://b/r")
        assert "wrong or expired" in said and "RAY_AUTH_TOKEN" in said and "old-token" not in said
    finally:
        server.shutdown()


def test_a_variable_that_is_not_set(project, refused):
    said = refused(
        "submit", "--address", NOBODY, "--secret", "NOT_SET_ANYWHERE", "train", "--run", "s3://b/r"
    )
    assert "NOT_SET_ANYWHERE is not set here" in said


def test_relative_paths_mean_nothing_on_a_cluster_elsewhere(project, refused):
    said = refused(
        "submit", "--address", "http://cluster:8265", "train", "--store", "stores/a", "--run", "s3://b"
    )
    assert "--store stores/a: a relative path means nothing on the cluster" in said
    assert "--out runs/sweep-" in refused("submit", "--address", "http://cluster:8265", "sweep")


def test_paths_of_a_local_job_are_absolute_and_its_folder_outlives_it(project):
    command = _command(("train", "--store=stores/a", "--run", "first"), local=True)
    assert command[3:] == ["train", f"--store={project}/stores/a", "--run", f"{project}/runs/first"]
    for name, option in (("train", "--run"), ("sweep", "--out"), ("ablate", "--out")):
        given = _command((name, "--store", "s3://b/s"), local=True)
        assert given[-2] == option and given[-1].startswith(f"{project}/runs/") and "s3://b/s" in given


def test_a_sweep_cannot_write_into_an_object_store(refused):
    said = refused("sweep", "--space", "x.yaml", "--out", "s3://b/sweep")
    assert "--out s3://b/sweep: give a folder" in said


def test_a_damaged_state_is_one_line(tmp_path, refused):
    (tmp_path / "state.json").write_text("{")
    assert "cannot read" in refused("cluster", "status", "--state", tmp_path)
    assert "cannot read" in refused("cluster", "up", "--state", tmp_path)


@pytest.mark.parametrize("text", ["", "available_node_types: {cpu: {max_workers: 2}}", "{", "- a"])
def test_groups_that_are_none(tmp_path, refused, text):
    (tmp_path / "groups.yaml").write_text(text)
    said = refused(
        "cluster", "up", "--groups", tmp_path / "groups.yaml", "--no-s3", "--state", tmp_path / "s"
    )
    assert "not a cluster file whose groups have resources and max_workers" in said


def test_resources_that_are_no_json(tmp_path, refused):
    assert "--resources accelerator" in refused(
        "cluster", "up", "--resources", "accelerator", "--state", tmp_path
    )


def test_the_command_alone_needs_no_ray():
    code = "import sys; from jobs.submit import submit; print('ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
