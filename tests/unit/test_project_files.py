"""The files at the root: what they promise is there."""

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = ("quickstart", "test", "lint", "format", "mlflow", "clean")


def make(*arguments):
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_make_lists_every_target_by_default():
    listed = make().stdout
    declared = set(re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)) - {"help"}
    assert set(TARGETS) <= declared
    assert all(re.search(rf"make {name} +\w", listed) for name in declared), listed


def test_make_refuses_another_python(tmp_path):
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\nexec python3 -c 'import sys; sys.exit(\"error: Python 3.9; 3.11 or 3.12\")'\n"
    )
    python.chmod(0o755)
    done = make(f"PYTHON={python}", f"VENV={tmp_path}/env", "install")
    assert done.returncode != 0
    assert "3.11 or 3.12" in done.stderr
    assert not (tmp_path / "env").exists()


def test_continuous_integration_calls_make_test():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    commands = [
        line for line in script.read_text().splitlines() if line and not line.startswith(("#", "set"))
    ]
    assert commands[-1] == "make test"


@pytest.mark.parametrize(
    "name", ["constraints.txt", "pyproject.toml", "LICENSE", "jobs/presets/quickstart.yaml"]
)
def test_nothing_ignores_what_a_clone_needs(name):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert (ROOT / name).is_file()
    done = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False)
    assert done.returncode == 1


def test_every_dependency_is_pinned():
    pinned = {
        re.split(r"[=\[]", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    missing = {re.split(r"[\[<>=]", name)[0].lower().replace("_", "-") for name in wanted} - pinned
    assert not missing


def test_pages_name_only_files_that_exist():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    paths = re.findall(r"`((?:unigeoseg|pipelines|jobs|cluster|tests)/[\w/.\-]+)`", text)
    assert len(paths) > 10
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_every_folder_of_tests_is_looked_into(request):
    """pytest leaves out some names by default, ``build`` among them, without a word."""
    patterns = request.config.getini("norecursedirs")
    folders = {p.name for p in (ROOT / "tests").rglob("*") if p.is_dir() and list(p.glob("test_*.py"))}
    assert {"build", "train"} <= folders
    assert not {f for f in folders for pattern in patterns if fnmatch(f, pattern)}
