"""Settings of Sphinx, and the page of settings, written from the configuration's own descriptions."""

import dataclasses
import importlib.metadata
import inspect
import sys
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.highlighting import lexers

project = "UniGeoSeg"
version = release = importlib.metadata.version("unigeoseg")
extensions = ["myst_parser", "sphinx_click", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "UniGeoSeg"
html_copy_source = False
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_typehints = "description"
# Links to files of the checkout, which are no pages.
suppress_warnings = ["myst.xref_missing"]
# Pictures in words, which repositories draw: here they stand as they are.
lexers["mermaid"] = TextLexer()

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))  # whole_cli


def _sections(kind: Any, path: str = "") -> typing.Iterator[tuple[str, Any]]:
    """Each section of the configuration with its path, outer ones first."""
    yield path, kind
    for name, hint in _fields(kind).items():
        inner = _section_of(hint)
        if inner is not None:
            yield from _sections(inner, f"{path}.{name}" if path else name)


def _fields(kind: Any) -> dict[str, Any]:
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _section_of(hint: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        if inspect.isclass(kind) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)):
            return kind
    return None


def _row(kind: Any, name: str) -> tuple[Any, str]:
    """Default and description of a setting."""
    if issubclass(kind, BaseModel):
        field = kind.model_fields[name]
        default = "(must be given)" if field.is_required() else field.get_default(call_default_factory=True)
        return default, field.description or ""
    (field,) = (field for field in dataclasses.fields(kind) if field.name == name)
    missing = field.default is dataclasses.MISSING
    return (field.default_factory() if missing else field.default), _comment(kind, name)  # type: ignore[misc]


def _comment(kind: Any, name: str) -> str:
    """The ``#:`` lines above a field of a dataclass."""
    lines, found = inspect.getsource(kind).splitlines(), []
    for line in lines:
        text = line.strip()
        if text.startswith("#:"):
            found.append(text.removeprefix("#:").strip())
        elif text.startswith(f"{name}:"):
            return " ".join(found)
        else:
            found = []
    return ""


def _cell(text: Any) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def write_configuration(_: Sphinx) -> None:
    """Writes ``generated/configuration.md``."""
    from pipelines.config import Config

    lines = [
        "# Configuration",
        "One tree of settings, given as YAML presets and `--set KEY=VALUE`; unknown keys are refused with",
        "the nearest valid name. `--print-config` shows what is in force. Paths are of the whole tree.",
    ]
    for path, kind in _sections(Config):
        plain = {name: hint for name, hint in _fields(kind).items() if _section_of(hint) is None}
        if not plain:
            continue
        about = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("``", "`")
        lines += ["", f"## {path or 'At the top'}", " ".join(about.split()), ""]
        lines += ["| setting | default | |", "|---|---|---|"]
        for name in plain:
            default, text = _row(kind, name)
            whole = f"{path}.{name}" if path else name
            lines.append(f"| `{whole}` | `{_cell(default) or ' '}` | {_cell(text)} |")
    target = _HERE / "generated" / "configuration.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_configuration)
