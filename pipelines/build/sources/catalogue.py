"""What is known of the sources: a row each for a list, and a page for one."""

from pathlib import Path
from typing import Any

from pipelines.build.sources.registry import OPENERS, is_table_file, source_names
from pipelines.build.sources.table import SourceTable, read_table, shipped_tables
from pipelines.labels.taxonomy import taxonomy
from pipelines.triplets.layouts import LAYOUTS
from unigeoseg.errors import UserError

#: Sources that are more than a table say of themselves what a table would say.
_OTHERS: dict[str, dict[str, str]] = {
    "synthetic": {
        "kind": "generated",
        "title": "Generated scenes: fields, harbours, aprons, courts, tanks",
        "licence": "Apache-2.0",
        "expects": "nothing: it takes no --root",
        "checked": "generated",
    }
}


def list_sources() -> dict[str, Any]:
    """``{"sources": [{"name", "kind", "title", "classes", "licence", "url", "expects", "checked"}]}``."""
    rows = []
    for name in source_names():
        table = shipped_tables().get(name)
        if table is None:
            rows.append({"name": name, "classes": 0, "url": ""} | _other(name))
            continue
        rows.append(
            {
                "name": table.name,
                "kind": table.kind,
                "title": table.title,
                "classes": sum(row.category is not None for row in table.classes),
                "licence": table.licence,
                "url": table.url,
                "expects": table.expects,
                "checked": table.checked,
            }
        )
    return {"sources": rows}


def describe_source(name: str) -> dict[str, Any]:
    """Everything about one source, its classes beside their categories.

    Args:
        name: a known name, or a YAML file.

    Raises:
        UserError: there is no such source, or the file is no sound table.
    """
    if is_table_file(name):
        return _page(read_table(Path(name).expanduser()))
    if name in shipped_tables():
        return _page(shipped_tables()[name])
    if name in OPENERS:
        return {"name": name} | _other(name)
    raise UserError(
        f"unknown source {name!r}: choose one of {', '.join(source_names())}, or give a YAML file"
    )


def _other(name: str) -> dict[str, str]:
    if name in _OTHERS:
        return _OTHERS[name]
    reader = LAYOUTS[name]
    return {
        "kind": "triplets",
        "title": reader.title,
        "licence": reader.licence,
        "url": reader.origin,
        "expects": reader.expects,
        "checked": "the layout; its splits, texts and masks are taken as they are",
    }


def _page(table: SourceTable) -> dict[str, Any]:
    known = taxonomy()
    classes = [
        {
            "name": row.name,
            "value": row.value,
            "colour": list(row.colour) if row.colour else None,
            "category_id": row.category,
            "category": known[row.category].name if row.category else None,
        }
        for row in table.classes
    ]
    plain = table.model_dump(mode="json", exclude={"classes"})
    return {"kind": table.kind} | plain | {"classes": classes, "fingerprint": table.fingerprint}
