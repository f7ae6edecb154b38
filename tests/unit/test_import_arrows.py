"""unigeoseg <- pipelines <- jobs, and cluster <- jobs: who may import whom, read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"unigeoseg", "pipelines", "jobs", "cluster"}
ALLOWED = {
    "unigeoseg": {"unigeoseg"},
    "pipelines": {"unigeoseg", "pipelines"},
    "jobs": {"unigeoseg", "pipelines", "jobs", "cluster"},
    "cluster": {"cluster"},
}
#: The model is plain PyTorch, and the engine runs in a plain process.
REFUSED = {
    "unigeoseg": {"ray", "mlflow", "deepspeed", "pydantic", "click", "fsspec", "pyarrow"},
    "pipelines": {"click"},
}


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                assert base, f"{path}:{node.lineno}: relative import out of its package"
                yield node.lineno, base[0]
            elif node.module:
                yield node.lineno, node.module.partition(".")[0]


@pytest.mark.parametrize("package", sorted(OURS))
def test_package_imports_only_what_lies_below_it(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"no sources in {package}"
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for line, name in imports_of(path)
        if (name in OURS and name not in ALLOWED[package]) or name in REFUSED.get(package, set())
    ]
    assert not wrong, "\n".join(wrong)


def test_engine_and_model_load_without_ray(run_python):
    done = run_python(
        "import sys\n"
        "import unigeoseg.model, unigeoseg.export, unigeoseg.samples.collate, unigeoseg.metrics\n"
        "import pipelines.train.engine.engine\n"
        "print(sorted({'ray', 'mlflow'} & set(sys.modules)))\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"
