"""The layouts by name, and which one a folder has."""

from pipelines.pictures.picture import USUAL, Rules
from pipelines.triplets.base import TripletSource
from pipelines.triplets.dior_rsvg import DiorRSVGSource
from pipelines.triplets.earthreason import EarthReasonSource
from pipelines.triplets.folder import Folder
from pipelines.triplets.geoseg import GeoSegSource
from pipelines.triplets.geoselect import GeoSelectSource
from pipelines.triplets.phrases import RefSegRSSource, RISBenchSource
from pipelines.triplets.refer import RemoteSAMSource, RRSISDSource
from pipelines.triplets.sior import SIORSource
from unigeoseg.errors import UserError

#: In the order in which they are tried; RemoteSAM-270K would take an RRSIS-D folder, so it comes after.
LAYOUTS: dict[str, type[TripletSource]] = {
    layout.name: layout
    for layout in (
        GeoSelectSource,
        RRSISDSource,
        RISBenchSource,
        RefSegRSSource,
        DiorRSVGSource,
        SIORSource,
        EarthReasonSource,
        GeoSegSource,
        RemoteSAMSource,
    )
}


def recognise(path: str, rules: Rules = USUAL) -> TripletSource | None:
    """The reader of the layout that a folder has, or ``None``.

    Raises:
        UserError: it has the layout but lacks files that all splits need.
    """
    for layout in LAYOUTS.values():
        found = layout.find(Folder(path))
        if found is not None:
            return layout(found, rules)
    return None


def open_layout(path: str, name: str, rules: Rules = USUAL) -> TripletSource:
    """The reader of the layout ``name``.

    Raises:
        UserError: no such layout, or the folder does not have it.
    """
    if name not in LAYOUTS:
        raise UserError(f"no layout {name!r}: choose one of {', '.join(LAYOUTS)}")
    layout = LAYOUTS[name]
    found = layout.find(Folder(path))
    if found is None:
        present = sorted(Folder(path).names())[:12]
        raise UserError(
            f"{path} does not have the layout {name} ({layout.title}: {layout.expects}); "
            + (f"it holds {', '.join(present)}" if present else "it does not exist or is empty")
        )
    return layout(found, rules)
