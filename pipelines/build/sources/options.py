"""Options of a source (``build.source``), checked."""

from typing import Any

from pydantic import ValidationError

from pipelines.build.sources.table import explain_rows
from pipelines.config.building import BuildConfig
from unigeoseg.errors import UserError


def options_of(model: type[Any], name: str, config: BuildConfig) -> Any:
    """The options of source ``name`` by a pydantic model.

    Raises:
        UserError: an option is unknown or has a wrong value; the known ones are named.
    """
    try:
        return model(**config.source)
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        raise UserError(
            f"build.source of source {name}: {explain_rows(error, model)} (known options: {known})"
        ) from error
