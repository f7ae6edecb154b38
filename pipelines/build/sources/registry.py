"""Sources by name."""

from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from pipelines.build.config import BuildConfig
from pipelines.build.sources.base import Source
from pipelines.build.sources.dubai import DubaiSource
from pipelines.build.sources.synthetic.source import SyntheticConfig, SyntheticSource
from unigeoseg.errors import UserError


def _synthetic(root: Path | None, config: BuildConfig) -> Source:
    if root is not None:
        raise UserError("source synthetic generates its images and takes no --root: leave it out")
    try:
        options = SyntheticConfig(**config.source)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        known = ", ".join(SyntheticConfig.model_fields)
        raise UserError(f"build.source of the synthetic source: {lines} (known options: {known})") from error
    return SyntheticSource(options, config.seed)


def _dubai(root: Path | None, config: BuildConfig) -> Source:
    if config.source:
        raise UserError(f"source dubai has no options, got {', '.join(config.source)}: remove build.source")
    if root is None:
        raise UserError("source dubai needs --root: the folder that holds 'Tile 1', 'Tile 2', ...")
    return DubaiSource(root, config.max_unknown_share)


SOURCES: dict[str, Callable[[Path | None, BuildConfig], Source]] = {
    "synthetic": _synthetic,
    "dubai": _dubai,
}


def open_source(name: str, root: str | Path | None, config: BuildConfig) -> Source:
    """The adapter of a source.

    Raises:
        UserError: unknown name, missing or wrong root, unknown option.
    """
    if name not in SOURCES:
        raise UserError(f"unknown source {name!r}: choose one of {', '.join(sorted(SOURCES))}")
    folder = Path(root).expanduser() if root is not None else None
    if folder is not None and not folder.is_dir():
        raise UserError(f"--root {folder}: no such folder")
    return SOURCES[name](folder, config)
