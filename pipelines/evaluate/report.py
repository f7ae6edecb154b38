"""``report.html`` of a run folder: what was reached, how it got there, and what it looks like."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.evaluate.history import History
from pipelines.evaluate.plots import COLOURS, plot_learning, plot_losses, plot_shares
from pipelines.evaluate.presence import in_words as absent_in_words
from pipelines.evaluate.tables import stretched_in_words
from pipelines.evaluate.thresholds import in_words
from pipelines.runs.folder import CONFIG, EXPORT, METRICS, SUMMARY, RunFolder
from pipelines.runs.learning import result_warnings
from pipelines.storage.yaml_text import load_yaml
from unigeoseg.errors import UserError
from unigeoseg.tasks import TASKS

REPORT, PLOTS, EVALUATION = "report.html", "plots", "evaluation"
MEASURES = f"{EVALUATION}/measures.json"
SAMPLES = f"{PLOTS}/samples-{{task}}.png"
#: A smaller difference of gIoU is not called one, however sure.
_LEAST = 0.02
#: Pictures in the order of the page: file, heading, what to look for.
_CURVES = (
    (
        "learning.png",
        "Is it learning?",
        "Left: the same held-out (solid) and training samples (dashed) each time. docs/is_it_learning.md "
        "says how to read it.",
    ),
    ("loss.png", "Loss", "Thin: each logged step; bold: smoothed."),
    ("shares.png", "Task shares", "Dashed: what the schedule asks for; solid: what the batches held."),
    ("iou.png", "IoU of the held-out samples", "Dashed: the mean, which is gIoU."),
)
#: Files of a run folder that the page names, and what they are.
_FILES = (
    (SUMMARY, "the result in one file"),
    (CONFIG, "the effective configuration"),
    (METRICS, "one object a logged step"),
    ("ledger.jsonl", "the sample ids of every step"),
    (f"{EVALUATION}/evaluation.json", "metrics with confidence intervals"),
    (f"{EVALUATION}/per_sample.parquet", "a row a sample, with the predicted mask"),
    (EXPORT, "the model, for predict and evaluate"),
    ("checkpoints", "what training resumes from"),
)


def write_report(run: str | Path | RunFolder) -> str:
    """Draws the curves and writes ``report.html``; evaluation pictures that are there are shown.

    Args:
        run: a run folder, finished or not.

    Returns:
        The report's path.

    Raises:
        UserError: the folder holds neither metrics nor an evaluation.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    for name in (METRICS, CONFIG, SUMMARY, EVALUATION):
        folder.fetch(name)
    history = History(folder.local(METRICS))
    measures = _read_json(folder.local(MEASURES))
    if not len(history) and not measures:
        raise UserError(
            f"{folder.path} holds neither {METRICS} nor {MEASURES}: it is no run folder, or nothing was "
            "logged yet; give the folder of a run, such as runs/quickstart"
        )
    if len(history):
        plot_losses(history, folder.local(f"{PLOTS}/loss.png"))
        plot_shares(history, folder.local(f"{PLOTS}/shares.png"))
        plot_learning(history, folder.local(f"{PLOTS}/learning.png"))
        folder.publish(*(f"{PLOTS}/{name}.png" for name in ("loss", "shares", "learning")))
    folder.local(REPORT).write_text(_render(folder, history, measures), encoding="utf-8")
    folder.publish(REPORT)
    return f"{folder.path}/{REPORT}"


def _render(folder: RunFolder, history: History, measures: dict[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("pipelines.evaluate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    config = folder.local(CONFIG)
    exists = folder.exists
    evaluation = _read_json(folder.local(f"{EVALUATION}/evaluation.json"))
    warned = _read_json(folder.local(SUMMARY)).get("warnings", [])
    stretched = evaluation.get("stretched", {})
    tasks = [task for task in TASKS if task in measures]
    return environment.get_template("report.html.j2").render(
        name=folder.name,
        path=folder.path,
        tasks=[_task_row(task, measures[task]) for task in tasks],
        facts=_facts(folder, history),
        evaluation=evaluation,
        stretched=stretched_in_words(stretched) if stretched.get("n") else "",
        threshold=" ".join(filter(None, _remarks(evaluation))),
        warnings=list(dict.fromkeys([*warned, *result_warnings(measures)])),
        yardsticks=exists(f"{PLOTS}/yardsticks.png"),
        curves=[(f"{PLOTS}/{f}", title, note) for f, title, note in _CURVES if exists(f"{PLOTS}/{f}")],
        sheets=[(t, SAMPLES.format(task=t)) for t in TASKS if exists(SAMPLES.format(task=t))],
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        files=[(name, what) for name, what in _FILES if exists(name)],
        colours=COLOURS,
    )


def _remarks(evaluation: dict[str, Any]) -> list[str]:
    """What other thresholds and a rule for "none" would do."""
    return [in_words(evaluation.get("threshold", {})), absent_in_words(evaluation.get("none", {}))]


def _task_row(task: str, m: dict[str, Any]) -> dict[str, Any]:
    """A task's numbers and the two answers that the page gives first.

    Learned: gIoU and the lower end of its interval are above the untrained model and the all-foreground mask.
    Reads the instruction: the same of the swap's drop and zero. Both by a difference worth naming.
    """
    baselines = [m[k] for k in ("untrained_gIoU", "all_foreground_gIoU") if m.get(k) is not None]
    row: dict[str, Any] = {"name": task, "measures": m, "margin": None, "learned": None}
    row |= {"drop": None, "reads": None}
    if baselines:
        margin = m["gIoU"] - max(baselines)
        row |= {"margin": margin, "learned": margin >= _LEAST and m["ci95"]["gIoU"][0] > max(baselines)}
    if m.get("swapped_gIoU") is not None:
        drop = m["swap_own_gIoU"] - m["swapped_gIoU"]
        row |= {"drop": drop, "reads": drop >= _LEAST and m["swap_drop_ci95"][0] > 0}
    return row


def _facts(folder: RunFolder, history: History) -> list[tuple[str, str]]:
    """Short facts of the head of the page: from the summary, else from the last logged step."""
    summary = _read_json(folder.local(SUMMARY))
    config = folder.local(CONFIG)
    facts: dict[str, Any] = {}
    if config.is_file():
        values = load_yaml(config.read_text(encoding="utf-8"))
        facts |= {"preset": values.get("name"), "seed": values.get("seed")}
    keys = (
        "steps",
        "samples_seen",
        "world_size",
        "zero_stage",
        "train_seconds",
        "mlflow_run_id",
        "checkpoint",
    )
    facts |= {key.replace("_", " "): summary.get(key) for key in keys}
    if not summary and len(history):
        facts["steps"] = int(history.steps[-1])
    if facts.get("train seconds") is not None:
        facts["train seconds"] = round(facts["train seconds"])
    return [(key, str(value)) for key, value in facts.items() if value is not None]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
