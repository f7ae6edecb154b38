"""Sources by name, or by the file of a table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.build.sources.base import Source
from pipelines.build.sources.boxes import BoxSource
from pipelines.build.sources.masks import MaskSource
from pipelines.build.sources.options import options_of
from pipelines.build.sources.ready import ready_openers
from pipelines.build.sources.synthetic.source import SyntheticConfig, SyntheticSource
from pipelines.build.sources.table import SourceTable, explain_rows, read_table, shipped_tables
from pipelines.config.building import BuildConfig
from pipelines.pictures.picture import Stretch
from pipelines.pictures.remote import Where, where_is
from unigeoseg.errors import UserError

Opener = Callable[[Where | None, BuildConfig], Source]


class TableOptions(BaseModel):
    """Options of a source that a table describes (``build.source``); ``None`` leaves the table's value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: str | None = Field(None, description="name of the layout; null: the one that fits the folder")
    bands: tuple[int, ...] | None = Field(None, description="bands shown as red, green, blue, from 1")
    stretch: Stretch | None = None
    tolerance: int | None = Field(None, ge=0, le=127)
    turn: bool | None = Field(None, description="turn pictures as their EXIF orientation says")


def _synthetic(root: Where | None, config: BuildConfig) -> Source:
    if root is not None:
        raise UserError("source synthetic generates its images and takes no --root: leave it out")
    return SyntheticSource(options_of(SyntheticConfig, "synthetic", config), config.seed)


def _of_table(table: SourceTable) -> Opener:
    def opener(root: Where | None, config: BuildConfig) -> Source:
        if root is None:
            holds = f": the folder that holds {table.expects}" if table.expects else ""
            raise UserError(f"source {table.name} needs --root{holds}")
        options: TableOptions = options_of(TableOptions, table.name, config)
        changed = options.model_dump(exclude_none=True, exclude={"layout"})
        own = _changed(table, changed)
        unknown, unmatched = config.max_unknown_share, config.max_unmatched_share
        if table.kind == "masks":
            return MaskSource(own, root, options.layout, unknown, unmatched)
        return BoxSource(own, root, options.layout, unknown, config.boxes, unmatched)

    return opener


def _changed(table: SourceTable, changed: dict[str, Any]) -> SourceTable:
    """A table with other values of some keys, checked again."""
    own = {name: getattr(table, name) for name in SourceTable.model_fields} | changed
    try:
        return SourceTable(**own)
    except ValidationError as error:
        raise UserError(f"build.source of source {table.name}: {explain_rows(error, SourceTable)}") from error


#: Sources that are more than a table; others may be added here.
OPENERS: dict[str, Opener] = {"synthetic": _synthetic, **ready_openers()}


def source_names() -> list[str]:
    """All names that ``--source`` knows, beside files of tables."""
    return sorted({*OPENERS, *shipped_tables()})


def is_table_file(name: str) -> bool:
    """Whether a source is given by a file of its own."""
    return name.endswith((".yaml", ".yml"))


def open_source(name: str, root: str | Path | None, config: BuildConfig) -> Source:
    """The adapter of a source.

    Args:
        name: a known name, or a YAML file that describes a source.
        root: the source's folder, on disk, in an object store, or on a web server that lists it.
        config: ``source`` has the source's options.

    Raises:
        UserError: unknown name, missing or wrong root, unknown option, a malformed table.
    """
    folder = None if root is None else where_is(str(root))
    folder = folder.expanduser() if isinstance(folder, Path) else folder
    if is_table_file(name):
        opener = _of_table(read_table(Path(name).expanduser()))
    elif name in OPENERS:
        opener = OPENERS[name]
    elif name in shipped_tables():
        opener = _of_table(shipped_tables()[name])
    else:
        raise UserError(
            f"unknown source {name!r}: choose one of {', '.join(source_names())}, or give a YAML file"
        )
    if isinstance(folder, Path) and folder.is_file():
        raise UserError(f"--root {folder} is a file: unpack it first with `unigeoseg data unpack {folder}`")
    if isinstance(folder, Path) and not folder.is_dir():
        raise UserError(f"--root {folder}: no such folder")
    return opener(folder, config)
