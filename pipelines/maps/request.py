"""What a map is asked for."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipelines.pictures.picture import Stretch
from unigeoseg.errors import UserError
from unigeoseg.question import Question

#: Settings that change how a map is made and not what it holds.
_FREE = ("out", "resume", "yes", "max_failed", "device", "formats", "simplify", "workers", "cpus", "gpus")


@dataclass(frozen=True)
class Request:
    """A map and how to make it.

    Attributes:
        model: by reference.
        inputs: rasters: files, folders, patterns, prefixes, STAC items.
        out: folder.
        text: a phrase, asked of every window.
        question: a question, asked of every window.
        prompts: or a file of points and boxes, one window each.
        scope: "window": windows of the model's size; "scene": one look at the whole, shrunk to that size.
        aoi: file of polygons; what is outside is not mapped.
        gsd: metres a pixel at which the model looks; ``None``: as the raster is.
        crs: of rasters that name none, such as ``EPSG:32633``.
        pixels: takes rasters without CRS as they are; results are in pixels.
        nodata: value of what is no data, instead of the raster's own.
        bands: shown as red, green, blue, from 1.
        stretch: to 8 bits; percentiles are taken once for all inputs.
        threshold: probability in (0, 1) above which a pixel is foreground; ``None``: the model's.
        none: whether a window may hold none of what is asked for, by the export's rule where it has one; a
            number is another limit of that rule's score.
        simplify: tolerance of outlines in pixels; 0: along pixel edges.
        formats: of the objects: gpkg, parquet, geojson.
        asset: of STAC items; ``None``: the first raster that is for looking at.
        strides: of a block; ``None``: by the window's size.
        batch: windows computed at once; sums of another order may round otherwise.
        device: such as ``cuda:1``.
        workers: fewest and most actors of Ray; (0, 0): this process alone.
        cpus: of an actor, and its threads.
        gpus: of an actor.
        max_failed: share of blocks (or prompts) that may fail.
        resume: goes on with the same map in ``out``.
        yes: takes more than a million windows.
        allow_vrt: opens a VRT, which names other files.
    """

    model: str
    inputs: tuple[str, ...]
    out: str
    text: str | None = None
    question: str | None = None
    prompts: str | None = None
    scope: Literal["window", "scene"] = "window"
    aoi: str | None = None
    gsd: float | None = None
    crs: str | None = None
    pixels: bool = False
    nodata: float | None = None
    bands: tuple[int, ...] | None = None
    stretch: Stretch = "auto"
    threshold: float | None = None
    none: float | bool = True
    simplify: float = 0.0
    formats: tuple[str, ...] = ("gpkg",)
    asset: str | None = None
    strides: int | None = None
    batch: int = 1
    device: str | None = None
    workers: tuple[int, int] = (0, 0)
    cpus: float = 1.0
    gpus: float = 0.0
    max_failed: float = 0.0
    resume: bool = False
    yes: bool = False
    allow_vrt: bool = False

    def asked(self) -> Question | None:
        """The instruction of every window; ``None``: prompts have their own.

        Raises:
            UserError: not exactly one of text, question and prompts is given, or settings exclude each other.
        """
        if sum(value is not None for value in (self.text, self.question, self.prompts)) != 1:
            raise UserError("give one of --prompts FILE, --text and --question")
        if self.scope == "scene" and self.gsd is not None:
            raise UserError("--scope scene decides the resolution: leave --gsd out")
        if self.prompts is None:
            return Question.ask(self.text, question=self.question)
        if self.scope == "scene":
            raise UserError(
                "--scope scene goes with --text or --question: each prompt has a window of its own"
            )
        return None

    def fingerprint(self, state: Any) -> str:
        """A name for everything that decides the bytes of the result.

        Args:
            state: of the files, the model and the prompts.
        """
        settings = {key: value for key, value in asdict(self).items() if key not in _FREE}
        return hashlib.sha256(json.dumps([settings, state], sort_keys=True, default=str).encode()).hexdigest()
