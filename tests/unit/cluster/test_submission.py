"""What a submission uploads, hides and passes on."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import requests

from cluster.errors import InputError
from cluster.submission.client import connect, is_private
from cluster.submission.job import Order, submit, take_by_name
from cluster.submission.sealed import HIDDEN, SEALED, Redactor, seal, unseal
from cluster.submission.tree import LEFT_OUT, check_tree, read_tree, stage

ROOT = Path(__file__).parents[3]


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "project"
    for name in ("jobs/train.py", "runs/a/metrics.jsonl", ".venv/lib/x.py", "stores/s/a.tar", "tests/t.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (root / "pyproject.toml").write_text("[project]\n")
    (root / ".gitignore").write_text("/runs/\n/.venv/\n/stores/\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], cwd=root, check=True)
    return root


def test_data_runs_and_environments_are_left_out(checkout, tmp_path):
    tree = read_tree(checkout)
    assert {path.as_posix() for path in tree.files} == {".gitignore", "jobs/train.py", "pyproject.toml"}
    assert tree.commit and not tree.changed
    target = stage(tree, tmp_path / "copy")
    assert sorted(p.name for p in target.rglob("*") if p.is_file()) == [
        ".gitignore",
        "pyproject.toml",
        "train.py",
    ]


SECRET_FILES = (
    "unigeoseg.env", ".env", ".env.production", "deploy/host.pem", "tls.key", "id_ed25519",
    ".aws/credentials", ".ssh/config", "gcp-credentials.json", "credentials.json", "kubeconfig", ".netrc",
)  # fmt: skip


@pytest.mark.parametrize("git", [True, False])
def test_credentials_are_never_uploaded_also_outside_git(checkout, git):
    for name in SECRET_FILES:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("AWS_SECRET_ACCESS_KEY=x")
    (checkout / "cluster/kuberay").mkdir(parents=True)
    (checkout / "cluster/kuberay/service_account.yaml").write_text("x")
    if git:
        subprocess.run(["git", "add", "-Af"], cwd=checkout, check=True)
    else:
        (checkout / ".gitignore").write_text("/notes/\n")
        (checkout / "notes").mkdir()
        (checkout / "notes/private.md").write_text("x")
        shutil.rmtree(checkout / ".git")
    assert {path.as_posix() for path in read_tree(checkout).files} == {
        ".gitignore", "jobs/train.py", "pyproject.toml", "cluster/kuberay/service_account.yaml",
    }  # fmt: skip


def test_a_changed_tree_is_refused_unless_allowed(checkout):
    (checkout / "jobs/new.py").write_text("y")
    tree = read_tree(checkout)
    with pytest.raises(InputError, match=r"1 files differ.*jobs/new\.py.*--allow-dirty"):
        check_tree(tree, 2**20, allow_dirty=False)
    check_tree(tree, 2**20, allow_dirty=True)


def test_a_huge_tree_is_refused_and_names_its_largest_file(checkout):
    (checkout / "jobs/big.bin").write_bytes(bytes(3 * 2**20))
    with pytest.raises(InputError, match=r"3\.0 MiB.*jobs/big\.bin \(3\.0 MiB\)"):
        check_tree(read_tree(checkout), 2**20, allow_dirty=True)


def test_a_folder_that_is_no_project_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no pyproject\.toml"):
        read_tree(tmp_path)


def test_this_project_is_small_and_its_ignore_files_agree():
    assert read_tree(ROOT).size < 5 * 2**20
    lines = [line for line in (ROOT / ".rayignore").read_text().splitlines() if not line.startswith("#")]
    assert tuple(lines) == LEFT_OUT


def test_every_file_of_the_packages_is_uploaded():
    """A room may have the name of a folder that is left out elsewhere."""
    packages = ("cluster", "jobs", "pipelines", "unigeoseg")
    there = {
        file.relative_to(ROOT)
        for package in packages
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert there <= set(read_tree(ROOT).files)


def test_variables_are_taken_by_name_alone(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "value")
    assert take_by_name(["SOME_KEY"]) == {"SOME_KEY": "value"}
    with pytest.raises(InputError, match="not set here"):
        take_by_name(["NOT_SET_ANYWHERE"])
    with pytest.raises(InputError, match="give the name alone") as caught:
        take_by_name(["TOKEN=abc123secret"])
    assert "abc123secret" not in str(caught.value)


def test_secrets_open_with_their_own_token_only():
    text = seal({"KEY": "topsecret-value"}, "token-1")
    assert "topsecret" not in text
    assert unseal(text, "token-1") == {"KEY": "topsecret-value"}
    with pytest.raises(InputError, match="another access token"):
        unseal(text, "token-2")


def test_redaction_covers_each_line_of_a_secret():
    redact = Redactor({"KEY": "first-part\nsecond-part", "SHORT": "on"})
    assert redact("a first-part b second-part on") == f"a {HIDDEN} b {HIDDEN} on"


def test_the_entry_passes_secrets_hides_them_and_keeps_the_exit_code():
    code = "import os, sys; print('key', os.environ['KEY']); print(os.environ.get('%s')); sys.exit(7)"
    done = subprocess.run(
        [sys.executable, "-m", "cluster.submission.entry", sys.executable, "-c", code % SEALED],
        cwd=ROOT,
        env={**os.environ, "RAY_AUTH_TOKEN": "t0ken", SEALED: seal({"KEY": "topsecret-value"}, "t0ken")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines() == [f"key {HIDDEN}", "None"]


WORKER = """
import logging, os, sys
held = logging.StreamHandler(sys.stderr)
files = logging.FileHandler(sys.argv[1])
logging.basicConfig(handlers=[held, files], level=logging.INFO)
from cluster.submission import worker
from importlib import import_module
place, _, name = worker.HOOK.rpartition(".")
getattr(import_module(place), name)()
key = os.environ["KEY"]
assert key == "topsecret-value"
print("printed", key)
logging.info("logged %s", key)
logging.getLogger("ray").info(f"said {key}")
try:
    raise ValueError(f"raised {key}")
except ValueError:
    logging.exception("caught")
logging.info("two %s", "places")
"""


def test_the_hook_of_a_worker_opens_the_secrets_and_keeps_them_out_of_every_log(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WORKER, tmp_path / "worker.log"],
        cwd=ROOT,
        env={**os.environ, "RAY_AUTH_TOKEN": "t0ken", SEALED: seal({"KEY": "topsecret-value"}, "t0ken")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "worker.log").read_text()
    assert "topsecret" not in done.stdout + done.stderr + log
    assert f"printed {HIDDEN}" in done.stdout
    for text in (f"logged {HIDDEN}", f"said {HIDDEN}", f"ValueError: raised {HIDDEN}", "two places"):
        assert text in log and text in done.stderr


def test_the_command_of_a_job_keeps_its_secrets_out_of_the_files_that_it_logs_into(tmp_path):
    code = (
        "import logging, os, sys; from jobs.cli import guard_this_process; guard_this_process();"
        "logging.basicConfig(filename=sys.argv[1]); logging.warning('key %s', os.environ['KEY'])"
    )
    done = subprocess.run(
        [*(sys.executable, "-m", "cluster.submission.entry"), sys.executable, "-c", code, tmp_path / "log"],
        cwd=ROOT,
        env={**os.environ, "RAY_AUTH_TOKEN": "t0ken", SEALED: seal({"KEY": "topsecret-value"}, "t0ken")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"key {HIDDEN}" in (tmp_path / "log").read_text()


def test_a_job_with_secrets_names_the_hook_and_one_without_does_not(checkout):
    asked = []

    class Client:
        def submit_job(self, **order):
            asked.append(order["runtime_env"])
            assert order["entrypoint"] == "exec python -m cluster.submission.entry python -V"
            return "job"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", "t0ken")
        for secrets in ({}, {"KEY": "topsecret-value"}):
            order = Order(["python", "-V"], read_tree(checkout), {"OPEN": "1"}, secrets)
            assert submit(Client(), "http://127.0.0.1:1", order) == "job"
    assert "worker_process_setup_hook" not in asked[0] and SEALED not in asked[0]["env_vars"]
    assert asked[1]["worker_process_setup_hook"] == "cluster.submission.worker.open_secrets"
    assert "topsecret" not in str(asked) and unseal(asked[1]["env_vars"][SEALED], "t0ken")


def test_a_head_that_is_not_reachable_is_one_line():
    with pytest.raises(InputError, match=r"no Ray job server answers at http://127\.0\.0\.1:9"):
        connect("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("https://cluster.example:8265", True), ("http://127.0.0.1:8265", True), ("http://[::1]:8265", True),
        ("http://localhost:1", True), ("http://127.9.9.9", True), ("http://cluster:8265", False),
        ("http://10.0.0.3:8265", False), ("http://127.0.0.1.example.org", False), ("cluster:8265", False),
        ("http://127.0.0.1@cluster:8265", False), ("http://localhost.example.org", False),
    ],
)  # fmt: skip
def test_the_token_goes_to_this_machine_or_by_https(address, private, monkeypatch):
    assert is_private(address) is private
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t0ken-of-the-test")
    asked = []

    def get(url, headers, **_):
        asked.append((url, headers))
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(InputError) as caught:
        connect(address)
    assert bool(asked) is private and ("in the clear" in str(caught.value)) is not private
    assert "t0ken" not in str(caught.value)


STARTING = """
import os, signal, subprocess, sys
from cluster.submission import entry

class Stopped(subprocess.Popen):
    def __init__(self, *words, **how):
        super().__init__(*words, **how)
        print(self.pid, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)  # as Ray does to a job that is stopped while it starts
        os.kill(os.getpid(), 0)

entry.subprocess.Popen = Stopped
sys.exit(entry.main([sys.executable, "-c", "import time; time.sleep(300)"]))
"""


def test_a_command_is_told_of_a_stop_that_comes_while_it_starts():
    done = subprocess.run(
        [sys.executable, "-c", STARTING], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert not psutil.pid_exists(int(done.stdout))


@pytest.mark.skipif(sys.platform != "linux", reason="the system ends it")
def test_a_command_ends_with_a_killed_entry():
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.submission.entry", sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    command = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait()
    command.wait(timeout=30)  # raises while it runs
    process.stdout.close()
