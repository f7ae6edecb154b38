"""Building a GeoSeg store from a source: tile, standardise, split into regions, filter, instruct, write."""

from typing import TYPE_CHECKING, Any

from pipelines.config.building import BuildConfig

if TYPE_CHECKING:
    from pipelines.build.build import build_store

__all__ = ["BuildConfig", "build_store"]


def __getattr__(name: str) -> Any:
    """Loads the builder on first use: the configuration tree imports this package and should stay light."""
    if name == "build_store":
        from pipelines.build.build import build_store

        return build_store
    raise AttributeError(name)
