"""The evaluation at the end of a run: measures, pictures and report in the run folder."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.evaluate.absent import fitted
from pipelines.evaluate.data import open_reader
from pipelines.evaluate.evaluate import Evaluation, Placement, evaluate_store, write_evaluation
from pipelines.evaluate.measures import measure_tasks
from pipelines.evaluate.models import ModelSource
from pipelines.evaluate.plots import plot_iou_histogram, plot_yardsticks
from pipelines.evaluate.presence import write_rule
from pipelines.evaluate.report import EVALUATION, MEASURES, PLOTS, SAMPLES, write_report
from pipelines.evaluate.sheets import draw_sheet, examples
from pipelines.evaluate.worker import EvalJob
from pipelines.runs.folder import EXPORT, RunFolder

log = logging.getLogger(__name__)


def evaluate_run(
    run: str | Path | RunFolder, store: str, config: Config, progress: bool = True
) -> dict[str, dict[str, Any]]:
    """Evaluates a run's export on ``config.evaluation.split`` of a store.

    Writes ``evaluation/`` (evaluation.json, per_sample.parquet with predictions, measures.json), ``plots/``
    and ``report.html`` into the run folder, and where the split has absent targets ``export/none.json``.
    Runs on Ray actors when this process is connected to Ray and ``config.evaluation.workers`` is not 0, else
    in this process; the numbers are the same.

    Args:
        run: the run folder, with ``export/``, and ``metrics.jsonl`` and ``config.yaml`` for the report.
        store: folder or ``s3://`` prefix.
        config: of the run.
        progress: shows a bar on a terminal.

    Returns:
        The ``tasks`` of ``summary.json``, see :func:`pipelines.evaluate.measures.measure_tasks`.

    Raises:
        UserError: no export, no store, or no usable sample in the split.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    settings = config.evaluation
    export = f"{folder.path}/{EXPORT}"
    job = EvalJob(
        store=store,
        split=settings.split,
        model=ModelSource(export),
        untrained=ModelSource(export, untrained_seed=config.seed),
        yardsticks=True,
        keep_predictions=True,
        threshold=config.threshold,
    )
    ray = sys.modules.get("ray")  # a process that never imported it is not connected
    workers = settings.workers if ray is not None and ray.is_initialized() else 0
    evaluation = evaluate_store(
        job,
        placement=Placement(workers, config.scale.cpus_per_worker, config.scale.gpus_per_worker),
        max_samples=settings.max_samples,
        seed=config.seed,
        images=settings.batch,
        progress=progress,
    )
    if rule := fitted(evaluation.table, store, settings.split):
        write_rule(export, rule)  # predict says with it that there is none
    measures = measure_tasks(evaluation, config.seed)
    write_evaluation(evaluation, str(folder.local(EVALUATION)), save_predictions=True)
    folder.local(MEASURES).write_text(json.dumps(measures, indent=2) + "\n", encoding="utf-8")
    draw_pictures(folder, evaluation, measures)
    folder.publish(EVALUATION, PLOTS)
    write_report(folder)
    return measures


def draw_pictures(folder: RunFolder, evaluation: Evaluation, measures: dict[str, dict[str, Any]]) -> None:
    """The pictures that need the evaluated samples; ``plots/*.png`` of the run folder."""
    result, predictions = evaluation.result, evaluation.predictions
    if predictions is None:
        raise ValueError("an evaluation without predictions cannot be drawn: EvalJob(keep_predictions=True)")
    plot_yardsticks(measures, folder.local(f"{PLOTS}/yardsticks.png"))
    plot_iou_histogram(evaluation.table, folder.local(f"{PLOTS}/iou.png"))
    reader = open_reader(evaluation.index)
    for task, values in measures.items():
        items = examples(evaluation.table, predictions, task, reader, result["image_size"])
        title = (
            f"{task}: {values['n']} held-out samples, gIoU {values['gIoU']:.3f}, cIoU {values['cIoU']:.3f}"
        )
        draw_sheet(items, title, folder.local(SAMPLES.format(task=task)))
