"""Who may import whom: the contracts of ``pyproject.toml``, and that they tell on what breaks them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--config", ROOT / "pyproject.toml", "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )


def test_the_arrows_hold():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    import shutil

    folder = tmp_path_factory.mktemp("copy")
    for package in ("unigeoseg", "pipelines", "jobs", "cluster"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("unigeoseg/metrics.py", "import ray", "unigeoseg.metrics -> ray"),
        ("unigeoseg/tasks.py", "import pipelines.config", "unigeoseg.tasks -> pipelines.config"),
        ("cluster/checks.py", "import unigeoseg.tasks", "cluster.checks -> unigeoseg.tasks"),
        ("pipelines/store/index.py", "import click", "pipelines.store.index -> click"),
        (
            "pipelines/store/index.py",
            "import pipelines.build.card",
            "pipelines.store.index -> pipelines.build",
        ),
        (
            "pipelines/train/engine/step.py",
            "import pipelines.train.loop.loop",
            "pipelines.train.engine.step -> pipelines.train.loop.loop",
        ),
        ("pipelines/loose.py", "", "pipelines.loose"),
    ],
)
def test_an_arrow_the_wrong_way_is_told(copy, file, line, told):
    path = copy / file
    before = path.read_text() if path.exists() else None
    try:
        path.write_text(f"{before or ''}\n{line}\n")
        done = lint_imports(copy)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)
    assert done.returncode == 1 and told in done.stdout, done.stdout + done.stderr


def test_engine_and_model_load_without_ray(run_python):
    done = run_python(
        "import sys\n"
        "import unigeoseg.model, unigeoseg.export, unigeoseg.samples.collate, unigeoseg.metrics\n"
        "import pipelines.train.engine.engine\n"
        "pipelines.train.engine.engine.import_deepspeed()\n"
        "print(sorted({'ray', 'mlflow'} & set(sys.modules)))\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_data_are_built_and_read_without_the_models_libraries(run_python):
    """They take seconds to import: of each command on stores, and of each process that makes or reads one."""
    code = (
        "import sys, pipelines.build.build, pipelines.build.parts, pipelines.build.preview\n"
        "import pipelines.curate.lint, pipelines.curate.merge, pipelines.curate.export\n"
        "import pipelines.store.reader, pipelines.evaluate.report, pipelines.runs.listing\n"
        "print(sorted({'torch', 'transformers', 'timm', 's3fs', 'obstore'} & set(sys.modules)))"
    )
    done = run_python(code)
    assert done.stdout == "[]\n", done.stdout + done.stderr
