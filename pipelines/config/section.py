"""What every part of the configuration tree has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the tree: frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
