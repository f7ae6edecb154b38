"""The documentation builds without a warning; its generated pages hold every command and every setting."""

import re
import subprocess
import sys

import click
import pytest

from pipelines.config import Config
from tests.conftest import ROOT
from tests.examples.collect import all_commands


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_command_is_there(built):
    text = (built / "commands.html").read_text(encoding="utf-8")
    for path, command in all_commands():
        if not isinstance(command, click.Group):
            assert f'id="unigeoseg-{"-".join(path)}"' in text, path


def test_every_setting_is_there(built):
    text = (built / "generated/configuration.html").read_text(encoding="utf-8")

    def names(values, path=""):
        for name, value in values.items():
            whole = f"{path}.{name}" if path else name
            yield from names(value, whole) if isinstance(value, dict) and value else [whole]

    for name in names(Config(name="x").plain()):
        if not name.startswith("tracking.tags"):
            assert re.search(rf">{re.escape(name)}<", text), name


def test_every_page_is_in_the_table_of_contents_and_short_lines_stay_readable():
    listed = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or re.search(rf"^{page.stem}$", listed, re.MULTILINE), page
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
