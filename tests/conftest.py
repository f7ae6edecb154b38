"""What several tests share."""

import gc
import os
import subprocess
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.warm import run_warm

ROOT = Path(__file__).parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the repository; without it the tests that need it are skipped."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        warnings.warn(f"{path} is missing: checks against reference data do not run", stacklevel=1)
        pytest.skip(f"{path} is missing")
    return path


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python code in a fresh process at the repository's root."""

    def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture(scope="session")
def run_code(run_module: Callable[..., Any]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python code in a process of its own where what trains is imported already."""
    return partial(run_module, "-c")


@pytest.fixture(scope="session")
def run_module() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``python -m module arguments…`` in a process of its own at the repository's root."""

    def run(
        module: str, *arguments: str | int | Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return run_warm(module, *arguments, environment={**os.environ, **environment})

    return run


@pytest.fixture(scope="session")
def run_cli(run_module: Callable[..., Any]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the ``unigeoseg`` command in a process of its own at the repository's root."""
    return partial(run_module, "jobs.cli")


@pytest.fixture
def no_sheets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds and merges draw no contact sheets, which take six times as long as a small store.

    Tests marked ``sheets`` have them drawn.
    """
    if request.node.get_closest_marker("sheets") is None:
        monkeypatch.setattr("pipelines.build.preview.write_previews", lambda index: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many skipped tests are borne."""
    parser.addoption(
        "--most-skips",
        type=int,
        metavar="N",
        help="Fail when more tests than N are skipped; default: report them.",
    )


def pytest_collection_finish() -> None:
    """What was imported until here stays: the collector need not look through it after each test."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What was skipped and why: a green suite alone does not say what it did not look at."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    passed = len(terminalreporter.stats.get("passed", []))
    budget = config.getoption("--most-skips")
    allowed = "" if budget is None else f", {budget} allowed"
    terminalreporter.section(f"{len(skipped)} tests did not run, {passed} passed{allowed}")
    for line in skip_lines(skipped):
        terminalreporter.write_line(line)


def skip_lines(reports: Sequence[Any]) -> list[str]:
    """Skipped tests by reason, the most frequent first, each with the files that they are in."""
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for report in reports:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[text.removeprefix("Skipped: ")][report.nodeid.partition("::")[0]] += 1
    ordered = sorted(reasons.items(), key=lambda item: (-item[1].total(), item[0]))
    return [f"{files.total():5d}  {reason}  ({_counted(files)})" for reason, files in ordered]


def _counted(files: Counter[str]) -> str:
    return ", ".join(f"{file} {count}" for file, count in sorted(files.items()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Too many skipped tests are a failure, where a limit was given."""
    budget = session.config.getoption("--most-skips")
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and budget is not None and len(reporter.stats.get("skipped", [])) > budget:
        session.exitstatus = max(int(session.exitstatus), pytest.ExitCode.TESTS_FAILED)
