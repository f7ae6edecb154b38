"""A map, from its inputs to its layers."""

import dataclasses
import datetime
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

from pipelines.build.progress import Steps
from pipelines.maps.documents import MAP, write_document
from pipelines.maps.inputs import model_state, state_of
from pipelines.maps.objects import join_pieces
from pipelines.maps.planning import Sheet, Sheets, check_amount, check_instruction, lay_out
from pipelines.maps.rasters_out import MASK, SCORE, write_rasters
from pipelines.maps.report import REPORT, write_report
from pipelines.maps.request import Request
from pipelines.maps.vectors import Layer, epoch_date, fitting, write_layers
from pipelines.maps.work import WORK, Work
from pipelines.maps.workers import Outcomes, computed_here, computed_on_ray
from unigeoseg.errors import UserError
from unigeoseg.segmenter import Segmenter, load

logger = logging.getLogger(__name__)

ASKED, FAILED = "request.json", "failed.jsonl"


def make_map(request: Request, progress: bool = True) -> dict[str, Any]:
    """Maps rasters; what ``map.json`` holds.

    Args:
        request: what to map and how.
        progress: tells on stderr.

    Returns:
        ``{"windows", "computed", "skipped", "failed", "objects", "crs", "gsd", "outputs", …}``; with several
        inputs their sums, and ``inputs`` with one such object for each.

    Raises:
        UserError: something that is asked for cannot be done; said before anything is computed.
    """
    if request.workers[1] and request.device:
        raise UserError("--device is for this process; actors get theirs of Ray: set --gpus-per-worker")
    sheets = lay_out(request)
    out = Path(request.out.removeprefix("file://")).expanduser()
    asked = _asked(out, request, sheets)
    found = {at: done for at, sheet in enumerate(sheets.sheets) if (done := _finished(sheet)) is not None}
    wanted = [at for at in range(len(sheets.sheets)) if at not in found]
    with _connected(request) if wanted else nullcontext():  # what is refused there leaves no folder
        segmenter = load(sheets.model, request.device)
        sheets.warnings += check_instruction(segmenter, sheets)
        write_document(out / ASKED, asked)
        for text in sheets.warnings:
            logger.warning("%s", text)
        if wanted:
            found.update(make_sheets(sheets, wanted, segmenter, asked, progress))
    results = [found[at] for at in range(len(sheets.sheets))]
    if len(results) == 1:
        return results[0]
    keys = ("windows", "computed", "skipped", "failed", "parts", "objects")
    total = {key: sum(result[key] for result in results) for key in keys}
    shared = {
        key: results[0][key] if len({str(r[key]) for r in results}) == 1 else None for key in ("crs", "gsd")
    }
    whole = {**total, **shared, "outputs": {}, "warnings": sheets.warnings, "inputs": results}
    write_document(out / MAP, whole)
    return whole


def failed_share(result: dict[str, Any]) -> float:
    """Share of the blocks or prompts of a map that failed."""
    return float(result["failed"] / max(result["parts"], 1))


def _asked(out: Path, request: Request, sheets: Sheets) -> dict[str, Any]:
    """What ``request.json`` of the output folder says, or is to say.

    Raises:
        UserError: it holds something else, or too little can be done there.
    """
    state = [model_state(sheets.model), *(state_of(sheet.scene.path) for sheet in sheets.sheets)]
    state += [state_of(path) for path in (request.prompts, request.aoi) if path]
    fingerprint = request.fingerprint(state)
    before = out / ASKED
    if before.is_file():
        known: dict[str, Any] = json.loads(before.read_text(encoding="utf-8"))
        if not request.resume:
            raise UserError(f"--out {out} holds a map: go on with it (--resume), or choose another folder")
        if known["fingerprint"] != fingerprint:
            raise UserError(
                f"--out {out} holds another map ({_differences(known['request'], request)}): --resume goes "
                "on with the same inputs, model and settings alone; choose another folder"
            )
        return known
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out} holds files of something else: choose another folder")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: choose a folder")
    check_amount(sheets)
    day = epoch_date() or datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"fingerprint": fingerprint, "date": day, "request": dataclasses.asdict(request)}


def _differences(known: dict[str, Any], request: Request) -> str:
    now = json.loads(json.dumps(dataclasses.asdict(request)))
    names = [
        key for key, value in now.items() if known.get(key) != value and key not in ("out", "resume", "yes")
    ]
    return ", ".join(names) or "a file that it was made of has changed"


def _finished(sheet: Sheet) -> dict[str, Any] | None:
    """What a raster's map says, if nothing is left to do."""
    path = sheet.folder / MAP
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return None if result["failed"] else result


def make_sheets(
    sheets: Sheets, wanted: Sequence[int], segmenter: Segmenter, asked: dict[str, Any], progress: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Maps rasters, each into its folder.

    Args:
        sheets: the map.
        wanted: places of its rasters that are to be made.
        segmenter: the model, for this process.
        asked: of ``request.json``; its ``date`` is that of objects whose picture tells none.
        progress: tells on stderr.

    Yields:
        Place and content of ``map.json`` of each raster when it is finished.

    Raises:
        UserError: something cannot be written, or there are not the workers that are asked for.
    """
    chosen = [sheets.sheets[at] for at in wanted]
    name = Path(chosen[0].scene.path).name if len(chosen) == 1 else f"{len(chosen)} rasters"
    with ExitStack() as stack:
        left = {at: _left(sheets.sheets[at]) for at in wanted}
        whole = sum(sheet.windows for sheet in chosen)
        steps = stack.enter_context(Steps(f"map {name}", "window", whole, enabled=progress))
        works: dict[int, Work] = {}

        def opened(at: int) -> Work:
            if at not in works:
                works[at] = stack.enter_context(Work(sheets.sheets[at].folder))
                steps.update(sum(works[at].counts()))
            return works[at]

        for at in [at for at in wanted if not left[at]]:
            yield at, _finish(sheets, sheets.sheets[at], opened(at), asked)
        outcomes = _outcomes(sheets, segmenter, left)
        stack.callback(outcomes.close)  # an error leaves it in the middle
        for outcome in outcomes:
            work = opened(outcome.sheet)
            if outcome.part is None:
                work.fail(outcome.number, outcome.reason)
            else:
                work.save(outcome.part)
                steps.update(outcome.part.computed + outcome.part.skipped)
            left[outcome.sheet].discard(outcome.number)
            if not left[outcome.sheet]:
                yield outcome.sheet, _finish(sheets, sheets.sheets[outcome.sheet], work, asked)


def _left(sheet: Sheet) -> set[int]:
    """Numbers of the parts of a raster that are not there yet."""
    sheet.folder.mkdir(parents=True, exist_ok=True)
    if not (sheet.folder / WORK).is_file():
        return set(sheet.numbers)
    with Work(sheet.folder) as work:
        return set(sheet.numbers) - work.done()


def _connected(request: Request) -> AbstractContextManager[None]:
    """Ray for as long as it is needed, where workers are asked for."""
    if not request.workers[1]:
        return nullcontext()
    # Here, so that a process without Ray can map by itself.
    from pipelines.cluster_view.session import connected

    fewest, most = (math.ceil(count * request.cpus) for count in request.workers)
    return connected(fewest, most, "--workers")


def _outcomes(sheets: Sheets, segmenter: Segmenter, left: dict[int, set[int]]) -> Outcomes:
    """Computes what is left, in this process or on Ray, which is connected."""
    keys = [(at, number) for at, numbers in left.items() for number in sorted(numbers)]
    request = sheets.request
    if not request.workers[1] or not keys:
        return computed_here(sheets, segmenter, keys)
    return computed_on_ray(sheets, keys, request.workers, request.cpus, request.gpus)


def _finish(sheets: Sheets, sheet: Sheet, work: Work, asked: dict[str, Any]) -> dict[str, Any]:
    """Writes a raster's files from its parts; the content of its ``map.json``."""
    if sheet.prompts is None:
        count = join_pieces(work, sheet.grid)
    else:
        work.begin_objects()
        count = work.end_objects()
    write_rasters(work, sheet.grid, sheet.scene, sheet.folder)
    request = sheets.request
    layer = Layer(sheet.scene, _common(sheets, sheet, asked), _asked_by_prompt(sheet), request.simplify)
    outputs = {"mask": str(sheet.folder / MASK), "score": str(sheet.folder / SCORE)}
    formats, told = fitting(request.formats, count)
    for text in told:
        logger.warning("%s", text)
    layers = write_layers(work, layer, sheet.folder, formats)
    outputs |= {"objects" if name == "gpkg" else name: path for name, path in layers.items()}
    result = _result(sheets, sheet, work, count, outputs)
    result["warnings"] = [*sheets.warnings, *told]
    write_report(result, sheet.scene, sheet.folder)
    write_document(sheet.folder / MAP, result)
    if result["failed"]:
        work.close()
    else:
        work.remove()
    return result


def _common(sheets: Sheets, sheet: Sheet, asked: dict[str, Any]) -> dict[str, Any]:
    question = sheets.question
    return {
        "instruction": question.text if question else "",
        "task": question.task if question else "",
        "date": sheet.scene.date or asked["date"],
        "model": sheets.request.model,
    }


def _asked_by_prompt(sheet: Sheet) -> Callable[[int], tuple[str, str]] | None:
    if sheet.prompts is None:
        return None
    known = {prompt.number: (prompt.question.text, prompt.question.task) for prompt in sheet.prompts.inside}
    return known.__getitem__


def _result(sheets: Sheets, sheet: Sheet, work: Work, count: int, outputs: dict[str, str]) -> dict[str, Any]:
    """The content of ``map.json``; writes ``failed.jsonl``."""
    scene, request = sheet.scene, sheets.request
    failed = work.failed()
    lines = [json.dumps(_failure(sheet, number, reason)) + "\n" for number, reason in failed]
    (sheet.folder / FAILED).write_text("".join(lines), encoding="utf-8")
    computed, skipped = work.counts()
    gsd = None if scene.gsd is None else round((scene.gsd[0] + scene.gsd[1]) / 2, 6)
    question, rule = sheets.question, sheets.rule
    return {
        "windows": sheet.windows,
        "computed": computed,
        "skipped": skipped,
        "failed": len(failed),
        "parts": sheet.parts,
        "objects": count,
        "crs": scene.crs.to_string() if scene.crs else None,
        "gsd": gsd,
        "outputs": {**outputs, "failed": str(sheet.folder / FAILED), "report": str(sheet.folder / REPORT)},
        "input": scene.path,
        "size": [sheet.grid.height, sheet.grid.width],
        "native_size": list(scene.native),
        "window": sheet.grid.size,
        "stretch": scene.limits,
        "model": request.model,
        "instruction": question.text if question else None,
        "task": question.task if question else "interactive",
        "prompts": request.prompts,
        "prompts_outside": sheet.prompts.outside if sheet.prompts else [],
        "threshold": sheets.threshold,
        "none": None if rule is None else {"score": rule.score, "below": rule.threshold},
    }


def _failure(sheet: Sheet, number: int, reason: str) -> dict[str, Any]:
    if sheet.prompts is not None:
        return {"prompt": number, "reason": reason}
    across = sheet.grid.blocks[1]
    row, column = divmod(number, across)
    block = sheet.grid.block(row, column)
    place = {"rows": [block.top, block.bottom], "columns": [block.left, block.right]}
    return {"block": [row, column], **place, "reason": reason}
