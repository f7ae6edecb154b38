"""``unigeoseg map assess``: a finished map, of one raster or several, beside what is known to be there."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioError

from pipelines.maps.assessment.accuracy import agreement, thresholds
from pipelines.maps.assessment.compare import Tally, compare_objects, compare_pixels, has_objects
from pipelines.maps.assessment.files import ERRORS, OBJECTS, PICTURE, draw_assessment, write_error_objects
from pipelines.maps.assessment.truth import Chosen, Ground, PolygonTruth, Truth, TruthFile, open_truth
from pipelines.maps.documents import finished, write_document
from pipelines.maps.rasters_out import MASK, SCORE
from pipelines.maps.shapes import Area, NotThere, read_shapes
from pipelines.storage.libraries import check_libraries
from unigeoseg.errors import UserError

ASSESSMENT = "assessment.json"
#: Polygons whose rectangle covers less of what is compared were drawn for a part of it, most likely.
_PART = 0.5


def assess_map(
    map_folder: str | Path, chosen: Chosen, out: str | Path, aoi: str | None = None, progress: bool = True
) -> dict[str, Any]:
    """Compares a map with the truth, pixel by pixel and object by object.

    What the map has not computed, what the truth does not know and what lies outside ``aoi`` is left out.

    Args:
        map_folder: of a finished map.
        chosen: the truth.
        out: new folder, for ``assessment.json``, ``errors.tif``, ``errors.gpkg`` and ``assessment.png``; with
            several rasters these are in a folder of each one's name, and the sum of all beside them.
        aoi: polygons outside which nothing is compared.
        progress: tells on stderr.

    Returns:
        The content of ``assessment.json``; docs/maps.md tells its keys.

    Raises:
        UserError: there is no such map, the truth cannot be laid on it, or something cannot be written.
    """
    check_libraries()
    folder, target = Path(map_folder), Path(out)
    about = finished(folder)
    if target.exists() and any(target.iterdir()):
        raise UserError(f"--out {target} is not empty; give a new folder")
    work = _Assessment(chosen, open_truth(chosen), aoi, progress)
    try:
        if "inputs" not in about:
            return work.raster(folder, about, target)[0]
        return work.several(folder, about, target)
    except (OSError, RasterioError) as error:
        raise UserError(f"--out {target} cannot be written ({error}): make room") from error


class _Assessment:
    """Compares rasters' maps with one file of truth.

    Args:
        chosen: the truth.
        file: opened.
        aoi: file of polygons outside which nothing is compared.
        progress: tells on stderr.
    """

    def __init__(self, chosen: Chosen, file: TruthFile, aoi: str | None, progress: bool) -> None:
        self._chosen, self._file, self._progress = chosen, file, progress
        self._aoi, self._area = aoi, None if aoi is None else read_shapes(aoi, "--aoi")

    def several(self, folder: Path, about: dict[str, Any], target: Path) -> dict[str, Any]:
        """The rasters of a map, each into a folder of its own, and all together."""
        whole, rows, warnings = Tally(), [], []
        for one in about["inputs"]:
            name = Path(one["outputs"]["mask"]).parent.name
            try:
                told, tally = self.raster(folder / name, one, target / name, alone=False)
            except NotThere:
                warnings.append(f"{name}: nothing of it was compared")
                continue
            whole.add(tally)
            rows.append(told | {"thresholds": _without_curve(told["thresholds"])})
            warnings += [f"{name}: {text}" for text in told["warnings"]]
        if not rows or not self._file.reached:
            for row in rows:
                shutil.rmtree(target / Path(row["map"]).name)
            raise NotThere(
                f"{folder}: {self._chosen.path} knows nothing of its {len(about['inputs'])} rasters: look at "
                "their CRS"
            )
        told = self._asked(folder, about["inputs"][0]) | _measured(whole, warnings)
        told |= {"inputs": rows, "outputs": {"assessment": str(target / ASSESSMENT)}}
        write_document(target / ASSESSMENT, told)
        return told

    def raster(
        self, folder: Path, about: dict[str, Any], target: Path, alone: bool = True
    ) -> tuple[dict[str, Any], Tally]:
        """One raster's map; without polygons on it only where others have some.

        Raises:
            NotThere: nothing of it can be compared.
        """
        with ExitStack() as stack:
            try:
                files = [stack.enter_context(rasterio.open(folder / name)) for name in (MASK, SCORE)]
            except RasterioError as error:
                raise UserError(f"{folder} is no whole map ({error}): map again with --resume") from error
            mask = files[0]
            ground = Ground(str(folder), mask.height, mask.width, mask.crs, mask.transform)
            truth = self._file.on(ground, stack)
            if alone and isinstance(truth, PolygonTruth) and truth.bounds is None:
                raise NotThere(f"--truth {self._chosen.path} has no polygon on {folder}: look at its CRS")
            area = None if self._area is None else Area(self._area, ground, f"--aoi {self._aoi}")
            target.mkdir(parents=True, exist_ok=True)
            try:
                tally = compare_pixels(files, truth, area, ground, target, self._progress)
                if not tally.compared:
                    part = " inside --aoi" if self._aoi else ""
                    raise NotThere(
                        f"{folder}: {self._chosen.path} knows nothing of it{part}: look at their CRS"
                    )
                layers: dict[str, Any] = {}
                if isinstance(truth, PolygonTruth) and has_objects(folder):
                    tally.objects, layers = compare_objects(folder, truth, area, ground)
                told = self._asked(folder, about)
                told |= _measured(tally, self._warnings(folder, about, truth, ground, tally))
                told["outputs"] = _write(told, layers, target)
            finally:
                if not (target / ASSESSMENT).is_file():  # nothing half done: the same command may follow
                    for name in (ERRORS, OBJECTS, PICTURE):
                        (target / name).unlink(missing_ok=True)
                    target.rmdir()
        return told, tally

    def _asked(self, folder: Path, about: dict[str, Any]) -> dict[str, Any]:
        chosen = self._chosen
        return {
            "map": str(folder),
            "instruction": about["instruction"],
            "threshold": about["threshold"],
            "truth": {
                "path": chosen.path,
                "layer": chosen.layer,
                "where": None if chosen.where is None else [chosen.where[0], list(chosen.where[1])],
                "values": list(chosen.values) or None,
                "ignored": self._file.ignored,
            },
            "aoi": self._aoi,
        }

    def _warnings(
        self, folder: Path, about: dict[str, Any], truth: Truth, ground: Ground, tally: Tally
    ) -> list[str]:
        told = []
        polygons = truth if isinstance(truth, PolygonTruth) else None
        if polygons and not has_objects(folder):
            told.append("the map has no objects.gpkg, so objects were not compared: map with --format gpkg")
        if self._file.ignored:
            told.append(f"{self._file.ignored} shapes of the truth are no polygons and were left out")
        share = 1.0 if polygons is None or self._aoi else _share(polygons, ground, tally)
        if share < _PART:
            told.append(
                f"all polygons of the truth lie in {share:.0%} of what was compared, and everything the map "
                "found elsewhere counts as false: if they were drawn for a part alone, give it as --aoi"
            )
        if about["prompts"]:
            told.append(
                "the map was asked by prompts: what lies in no prompt's window is left out, and so are "
                "objects that nobody pointed at"
            )
        elif tally.left_out > tally.compared:
            told.append(f"{tally.left_out:,} pixels were left out, more than the {tally.compared:,} compared")
        return told


def _share(truth: PolygonTruth, ground: Ground, tally: Tally) -> float:
    """Of what was compared, the rectangle around all polygons."""
    if truth.bounds is None:
        return 0.0
    left, top, right, bottom = truth.bounds
    across = min(right, ground.width) - max(left, 0)
    return float(across * (min(bottom, ground.height) - max(top, 0)) / tally.compared)


def _without_curve(told: dict[str, Any] | None) -> dict[str, Any] | None:
    """Of a raster among others, whose own file has it."""
    return None if told is None else {key: value for key, value in told.items() if key != "curve"}


def _measured(tally: Tally, warnings: list[str]) -> dict[str, Any]:
    counts = tally.counts
    both, false, missed, neither = map(int, counts.squares.sum(0))
    kinds = {"both": both, "false": false, "missed": missed, "neither": neither}
    mapped, truth = (round(float(metres), 3) for metres in tally.metres)
    return {
        **agreement(counts),
        "pixels": {"compared": tally.compared, **kinds, "left_out": tally.left_out},
        "area_m2": None if mapped != mapped else {"map": mapped, "truth": truth},
        "objects": None if tally.objects is None else tally.objects.told(),
        "thresholds": thresholds(counts),
        "warnings": warnings,
    }


def _write(told: dict[str, Any], layers: dict[str, Any], target: Path) -> dict[str, str]:
    """Writes everything but ``errors.tif``, which is there; the paths by what they are."""
    if layers:
        write_error_objects(layers, target)
    draw_assessment(told, target)
    names = {"errors": ERRORS, "picture": PICTURE, **({"objects": OBJECTS} if layers else {})}
    outputs = {name: str(target / file) for name, file in names.items()}
    write_document(target / ASSESSMENT, told | {"outputs": outputs})
    return outputs
