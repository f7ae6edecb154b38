"""Stores of synthetic scenes as the project builds them; each is made once a process, and copied."""

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.build import BuildConfig, build_store

_places = tempfile.TemporaryDirectory(prefix="unigeoseg-built-")


def synthetic_store(out: Path, scenes: int, size: int | None = None, **settings: Any) -> Path:
    """A finished store at ``out``.

    Args:
        out: where; must not be there.
        scenes: how many.
        size: of a scene's side in pixels; ``None``: the source's own.
        settings: others of the build.
    """
    source = {"scenes": scenes} | ({} if size is None else {"size": size})
    config = BuildConfig.model_validate({"workers": 0, "source": source} | settings)
    return Path(shutil.copytree(_built(config.model_dump_json()), out))


@cache
def _built(config: str) -> str:
    folder = tempfile.mkdtemp(dir=_places.name)
    build_store(
        "synthetic", None, folder, BuildConfig.model_validate_json(config), progress=False, preview=False
    )
    return folder
