"""What ``unigeoseg evaluate`` does: find the model, place the work, write the files."""

import logging
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc

from pipelines.cluster_view.session import connected
from pipelines.evaluate.absent import fitted
from pipelines.evaluate.data import BenchmarkIndex, DataChoice, choose_data, open_index
from pipelines.evaluate.evaluate import Evaluation, Placement, evaluate_store, write_evaluation
from pipelines.evaluate.models import ModelSource, export_config, find_export
from pipelines.evaluate.pictures import draw_evaluation
from pipelines.evaluate.presence import read_rule, write_rule
from pipelines.evaluate.published import beside, read_published
from pipelines.evaluate.worker import EvalJob
from pipelines.tracking.registry import SCHEME
from unigeoseg.errors import UserError

log = logging.getLogger(__name__)
_NOTHING = (
    "--fit-none needs absent and present targets, and split {split!r} of {data} has not both: give data "
    "with both, such as a store built with --set instruct.absent=0.25, or EarthReason"
)


def evaluate_command(
    model: str,
    data: str,
    split: str | None = None,
    out: str | None = None,
    save_predictions: bool = False,
    workers: int = 0,
    gpus_per_worker: float = 0.0,
    max_samples: int | None = None,
    seed: int = 0,
    images: int = 16,
    layout: str | None = None,
    compare: Literal["letterbox", "inside", "original"] = "letterbox",
    boxes: bool | None = None,
    threshold: float | None = None,
    published: str | None = None,
    plots: bool = True,
    turn: bool = True,
    fit_none: bool = False,
) -> dict[str, Any]:
    """Evaluates and returns the content of ``evaluation.json``; the arguments are the command's options.

    With ``out``, finished portions are kept there until the end: the same call again goes on after a kill.

    Raises:
        UserError: no model, no data, missing files, an empty split, or ``out`` cannot be written, or
            nothing is absent in the data and ``fit_none`` asks for it.
    """
    if published:
        read_published(Path(published))  # a mistake there must not cost an evaluation
    choice = choose_data(data, split, layout, turn)
    if fit_none:
        _fits(model, data, choice)
    if split is None:
        log.info("%s: split %s", data, choice.split)
    export = find_export(model)
    job = EvalJob(
        data,
        choice.split,
        ModelSource(export),
        keep_predictions=save_predictions or bool(out and plots),
        layout=choice.layout,
        compare=compare,
        boxes=choice.boxes if boxes is None else boxes,
        threshold=export_config(export).threshold if threshold is None else threshold,
        turn=turn,
    )
    with connected(workers, workers, "--workers") if workers else nullcontext():
        evaluation = evaluate_store(
            job,
            placement=Placement(workers, gpus=gpus_per_worker),
            max_samples=max_samples,
            seed=seed,
            images=images,
            progress=True,
            resume=out,
            rule=None if fit_none else read_rule(export),
        )
    if fit_none:
        evaluation.result["none"]["fitted"] = _fit(evaluation, export)
    own = evaluation.index.published() if isinstance(evaluation.index, BenchmarkIndex) else {}
    ids = evaluation.table["sample_id"].to_pylist()
    evaluation.result["published"] = beside(evaluation.result, ids, own, published)
    if out:
        try:
            write_evaluation(evaluation, out, save_predictions)
            if plots:
                draw_evaluation(evaluation, out, seed)
        except OSError as error:
            raise UserError(f"cannot write to --out {out}: {error}; choose another folder") from error
    return evaluation.result


def _fits(model: str, data: str, choice: DataChoice) -> None:
    """Refuses to fit where it could only fail after the evaluation."""
    if model.startswith(SCHEME):
        raise UserError(
            f"--fit-none writes beside the weights, and {model} is in a registry: give --model the export"
        )
    if choice.boxes:
        raise UserError("--fit-none is for masks: leave --boxes out")
    if choice.layout is None:
        table = open_index(data, choice.split).table
        if "mask_area" in table.column_names and not pc.any(pc.equal(table["mask_area"], 0)).as_py():
            raise UserError(_NOTHING.format(data=data, split=choice.split))


def _fit(evaluation: Evaluation, export: str) -> dict[str, Any]:
    """Fits the rule for "none", writes it beside the weights, and gives its content."""
    result = evaluation.result
    rule = fitted(evaluation.table, result["data"], result["split"])
    if rule is None:
        raise UserError(_NOTHING.format(data=result["data"], split=result["split"]))
    log.info(
        "%s: %s below %.4g says that there is none", write_rule(export, rule), rule.score, rule.threshold
    )
    return asdict(rule)
