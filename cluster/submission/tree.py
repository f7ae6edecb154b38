"""The working tree as it is uploaded: the files of the project, without data, runs and environments."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pathspec import PathSpec

from cluster.errors import InputError

#: Never uploaded, whatever git says; the same lines as ``.rayignore``.
LEFT_OUT = (
    ".git/", ".venv/", "venv/", "runs/", "stores/", "tests/", "mlruns/", "__pycache__/", "*.egg-info/",
    "!/pipelines/runs/",
    "*.safetensors", "*.tar", "*.parquet", "*.pt", ".*_cache/",
    ".env", "*.env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*", ".ssh/", ".aws/",
    ".netrc", "kubeconfig", "credentials", "credentials.*", "*credentials.json",
)  # fmt: skip
MIB = 2**20


@dataclass(frozen=True)
class Tree:
    """What would be uploaded.

    Attributes:
        root: the project's folder.
        files: paths relative to it.
        size: bytes of all files.
        commit: the checkout's commit; ``None`` outside git.
        changed: files that differ from that commit.
    """

    root: Path
    files: tuple[Path, ...]
    size: int
    commit: str | None
    changed: tuple[str, ...]


def read_tree(root: Path) -> Tree:
    """Lists the files: in a checkout those that git tracks or would add.

    Elsewhere all that the ``.gitignore`` of its root does not name. Credentials are never among them.

    Raises:
        InputError: there is no project in ``root``.
    """
    if not (root / "pyproject.toml").is_file():
        raise InputError(f"{root.resolve()} is no project folder (no pyproject.toml); run this at its root")
    changed: tuple[str, ...] = ()
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is None:
        names = _unignored(root)
        commit = None
    else:
        names = sorted(set(filter(None, listed.split("\0"))))
        head = _git(root, "rev-parse", "HEAD")
        commit = head.strip() if head else None
        status = _git(root, "status", "--porcelain", "-z") or ""
        changed = tuple(line[3:] for line in status.split("\0") if line)
    skip = PathSpec.from_lines("gitignore", LEFT_OUT)
    files = tuple(Path(name) for name in names if not skip.match_file(name) and (root / name).is_file())
    return Tree(root, files, sum((root / path).stat().st_size for path in files), commit, changed)


def check_tree(tree: Tree, limit: int, allow_dirty: bool) -> None:
    """Refuses a tree that would be slow to upload, or that no commit describes.

    Args:
        tree: what would be uploaded.
        limit: most bytes.
        allow_dirty: whether files may differ from the commit.

    Raises:
        InputError: names the largest or the changed files.
    """
    if tree.size > limit:
        largest = sorted(tree.files, key=lambda path: (tree.root / path).stat().st_size, reverse=True)[:3]
        names = ", ".join(f"{path} ({(tree.root / path).stat().st_size / MIB:.1f} MiB)" for path in largest)
        raise InputError(
            f"the working tree has {tree.size / MIB:.1f} MiB, more than the {limit / MIB:g} MiB allowed; "
            f"largest: {names}. Add them to .gitignore, keep data in a store, or raise --max-mib"
        )
    if tree.changed and not allow_dirty:
        shown = ", ".join(tree.changed[:3]) + (" …" if len(tree.changed) > 3 else "")
        raise InputError(
            f"{len(tree.changed)} files differ from commit {(tree.commit or '')[:12]} ({shown}), so that the "
            "run could not be traced to one; commit them, or submit them all the same with --allow-dirty"
        )


def stage(tree: Tree, into: Path) -> Path:
    """Copies the files into an empty folder, which is then uploaded whole."""
    for path in tree.files:
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree.root / path, target)
    return into


def _unignored(root: Path) -> list[str]:
    """All files of a folder that is no checkout, in order."""
    ignored = root / ".gitignore"
    lines = ignored.read_text(encoding="utf-8").splitlines() if ignored.is_file() else []
    skip = PathSpec.from_lines("gitignore", lines)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return [name for name in names if not skip.match_file(name)]


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
