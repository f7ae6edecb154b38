"""A data set described by a table: where its files are and which class becomes which category.

The tables of this package lie in ``tables/``; one of a user's own has the same form. Three of its keys
suffice beside the name: ``licence``, ``layouts`` and ``classes``.
"""

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipelines.build.sources.patterns import compile_pattern, names_of
from pipelines.labels.taxonomy import taxonomy
from pipelines.pictures.picture import Rules, Stretch
from pipelines.storage.yaml_text import load_yaml
from unigeoseg.errors import UserError

TABLES = Path(__file__).with_name("tables")
_CATEGORY = re.compile(r"(\d+)\s+(\S.*)")
_HEX = re.compile(r"#([0-9a-fA-F]{6})$")
#: Stands in decoded labels for what belongs to no class for certain, where 0 says that nothing is known.
BACKGROUND = -2


def _category(value: Any) -> int | None:
    """The 25 of "25 Building"; the name is checked, so that a reader sees both and both are right."""
    if value is None:
        return None
    found = _CATEGORY.fullmatch(str(value))
    if not found:
        raise ValueError(f"{value!r} must be an id and its name, such as '25 Building', or null (ignored)")
    number, name = int(found[1]), found[2]
    known = taxonomy().get(number)
    if known is None or known.name != name:
        right = f"{number} is {known.name}" if known else f"there is no id {number}"
        ids = [f"{c.id} {c.name}" for c in taxonomy().values() if c.name.lower() == name.lower()]
        raise ValueError(f"{value!r}: {right}" + (f"; did you mean {ids[0]!r}?" if ids else ""))
    return number


def _colour(value: Any) -> Any:
    if isinstance(value, str) and (found := _HEX.match(value)):
        return tuple(bytes.fromhex(found[1]))
    return value


_Byte = Annotated[int, Field(ge=0, le=255)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassRow(_Part):
    """A class of the data set."""

    name: str = Field(min_length=1, description="the data set's own name; box labels are matched by it")
    category: Annotated[int | None, BeforeValidator(_category)] = Field(
        description="'25 Building', or null: ignored"
    )
    value: int | None = Field(None, ge=-(2**31) + 1, lt=2**63, description="in index masks, of any sign")
    colour: Annotated[tuple[_Byte, _Byte, _Byte] | None, BeforeValidator(_colour)] = Field(
        None, description="in colour masks: [r, g, b] or '#rrggbb'"
    )
    background: bool = Field(
        False,
        description="in masks: pixels that certainly belong to none of the other classes, so that categories "
        "may be said to be absent beside them; for rows without a category",
    )

    @model_validator(mode="after")
    def _sound(self) -> "ClassRow":
        if self.background and self.category is not None:
            raise ValueError("background is for a class whose category is null; leave one of them out")
        return self

    @property
    def label(self) -> int:
        """What stands for it in labels: its category, 0 for ignored, :data:`BACKGROUND`."""
        return BACKGROUND if self.background else self.category or 0


class Layout(_Part):
    """One way in which the files may lie; ``image`` finds them, the other patterns are filled from it."""

    name: str = "default"
    image: str = Field(description="such as '{split}/images/{name}.png', below the root")
    mask: str | None = None
    labels: str | None = Field(None, description="file with the boxes of an image, or of all images")
    encoding: Literal["index", "palette"] = "index"
    threshold: float | None = Field(
        None,
        gt=0,
        description="of soft masks: values from it on are the class whose value is not 0, others that of 0",
    )
    boxes: Literal["dota", "voc", "fair1m", "labelme", "csv", "coco", "vector"] | None = Field(
        None, description="form of the label files"
    )
    attribute: str | None = Field(
        None,
        description="of vector: the field with an object's class; null: all are of the table's only class",
    )
    layer: str | None = Field(
        None, description="of vector: the file's layer; null: the only one with geometries"
    )
    crowds: bool = Field(
        False, description="of coco: takes objects that say iscrowd; CVAT writes every drawn mask so"
    )
    key: str | None = Field(None, description="the image's name in the store; default: its path")
    scene: str | None = Field(None, description="the place that an image shows; default: its path")
    group: str | None = Field(None, description="what the split keeps together; default: the scene")
    splits: dict[str, Literal["train", "val", "test"]] = Field(
        default_factory=dict, description="the source's own split by the text at {split}"
    )

    @model_validator(mode="after")
    def _sound(self) -> "Layout":
        compile_pattern(self.image)
        known = names_of(self.image)
        for what in ("mask", "labels", "key", "scene", "group"):
            text = getattr(self, what)
            if text is not None:
                compile_pattern(text)
                if unknown := sorted(names_of(text) - known):
                    raise ValueError(f"{what}: {{{unknown[0]}}} does not occur in image: {self.image}")
        if (self.mask is None) == (self.labels is None):
            raise ValueError("give either mask (a pattern of masks) or labels (a pattern of box files)")
        if (self.labels is None) != (self.boxes is None):
            raise ValueError("labels and boxes go together: boxes says in which form the label files are")
        if self.threshold is not None and (self.mask is None or self.encoding != "index"):
            raise ValueError("threshold is for masks of the encoding index")
        if self.crowds and self.boxes != "coco":
            raise ValueError("crowds is for boxes: coco")
        for what in ("attribute", "layer"):
            if getattr(self, what) is not None and self.boxes != "vector":
                raise ValueError(f"{what} is for boxes: vector")
        if self.splits and "split" not in known:
            raise ValueError("splits needs {split} in the image pattern")
        return self


class SourceTable(_Part):
    """A data set as a table."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_\-]*$")
    title: str = ""
    licence: str = Field(min_length=1)
    licence_note: str = ""
    url: str = Field("", description="where to get it")
    paper: str = ""
    expects: str = Field("", description="the folders, for people")
    encoding_source: str = Field("", description="where the values or colours are documented")
    checked: str = Field("not said", description="whether real files were read")
    notes: str = ""
    bands: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="bands shown as red, green, blue (or one: grey), counted from 1; null: the first 3"
    )
    stretch: Stretch = Field(
        "auto",
        description="to 8 bits: auto (bytes as they are, else percentile), none, percentile (2 to 98 of the "
        "image), or [low, high]",
    )
    turn: bool = Field(
        True, description="whether pictures are turned as their EXIF orientation says, and labels with them"
    )
    gsd: (
        Annotated[float, Field(gt=0)]
        | tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
        | None
    ) = Field(
        None,
        description="metres that a pixel covers, or the least and the most of all pictures; null: not known",
    )
    tolerance: int = Field(0, ge=0, le=127, description="most difference per channel from a class's colour")
    layouts: tuple[Layout, ...] = Field(min_length=1)
    classes: tuple[ClassRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _sound(self) -> "SourceTable":
        if isinstance(self.gsd, tuple) and self.gsd[0] > self.gsd[1]:
            raise ValueError(f"gsd {list(self.gsd)}: the smaller first")
        if self.bands is not None and len(self.bands) not in (1, 3):
            raise ValueError(f"bands must name 1 or 3 bands, got {len(self.bands)}")
        for what in ("name", "value", "colour"):
            given = [getattr(row, what) for row in self.classes if getattr(row, what) is not None]
            double = next((v for v in given if given.count(v) > 1), None)
            if double is not None:
                raise ValueError(f"classes: {what} {double!r} occurs twice")
        for layout in self.layouts:
            if layout.boxes == "vector" and layout.attribute is None and len(self.classes) > 1:
                raise ValueError(
                    f"layout {layout.name}: say in which field the class of an object stands (attribute: …), "
                    "or leave one class in the table, which is then that of all objects"
                )
            if layout.mask is None:
                continue
            if layout.threshold is not None:
                if sum(row.value != 0 for row in self.classes) != 1:
                    raise ValueError(
                        f"layout {layout.name}: threshold needs one class whose value is not 0; what is "
                        "below it may be a class of value 0"
                    )
                continue
            needed = "value" if layout.encoding == "index" else "colour"
            if not any(getattr(row, needed) is not None for row in self.classes):
                raise ValueError(f"layout {layout.name}: {layout.encoding} masks need a {needed} per class")
        if not any(row.category for row in self.classes):
            raise ValueError("no class has a category")
        return self

    @property
    def kind(self) -> str:
        """What the labels are: "masks" or "boxes"."""
        return "masks" if self.layouts[0].mask else "boxes"

    @property
    def gsd_range(self) -> list[float] | None:
        """Metres that a pixel covers, at the least and at the most."""
        if self.gsd is None:
            return None
        return list(self.gsd) if isinstance(self.gsd, tuple) else [self.gsd, self.gsd]

    @property
    def rules(self) -> Rules:
        """How its pictures are shown."""
        return Rules(self.bands, self.stretch, self.turn)

    @property
    def fingerprint(self) -> str:
        """Changes with everything that decides labels and pixels."""
        plain = self.model_dump(
            mode="json", include={"name", "licence", "bands", "stretch", "tolerance", "layouts", "classes"}
        )
        for rows, names in (("classes", ("background",)), ("layouts", ("crowds", "attribute", "layer"))):
            for row in plain[rows]:  # as before there were such keys
                for name in names:
                    if not row[name]:
                        del row[name]
        if not self.turn:
            plain["turn"] = False
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_table(path: Path) -> SourceTable:
    """A table from a YAML file.

    Raises:
        UserError: the file cannot be read or is no sound table; says where and what is expected.
    """
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read source table {path}: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"source table {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"source table {path} must be a mapping with name, licence, layouts and classes")
    values.setdefault("name", re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "source")
    try:
        return SourceTable.model_validate(values)
    except ValidationError as error:
        raise UserError(f"source table {path}: {explain_rows(error, SourceTable)}") from error


def explain_rows(error: ValidationError, model: type[BaseModel]) -> str:
    """A validation error in one line."""
    found = []
    for row in error.errors():
        where = ".".join(str(part) for part in row["loc"])
        text = row["msg"].removeprefix("Value error, ")
        if row["type"] == "extra_forbidden":
            text = (
                f"unknown key; known are {', '.join(model.model_fields)}"
                if "." not in where
                else "unknown key"
            )
        found.append(f"{where}: {text}" if where else text)
    return "; ".join(found[:5])


@cache
def shipped_tables() -> dict[str, SourceTable]:
    """The tables of this package by name."""
    tables = [read_table(path) for path in sorted(TABLES.glob("*.yaml"))]
    return {table.name: table for table in tables}
