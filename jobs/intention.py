"""Dry runs for people: what a command would do, as a few lines with units."""

from collections.abc import Iterator
from typing import Any

from unigeoseg.tasks import TASKS

_WIDTH = 14
_SHOWN = 12


def train_text(plan: dict[str, Any]) -> str:
    """What `train` would do, from its dry run's result."""
    drawn, engine = plan["plan"], plan["deepspeed"]
    zero = engine.get("zero_optimization", {}).get("stage", 0)
    per = engine.get("train_micro_batch_size_per_gpu")
    again = engine.get("gradient_accumulation_steps", 1)
    workers = plan["workers"]
    held = f"{per} images at once" + _times(again)
    if plan["micro_batch"] == "auto":
        held = f"up to {per} images at once, as many as memory allows"
    lines = _rows(
        ("run", plan["run"]),
        ("store", plan["store"]),
        ("steps", f"{drawn['steps']:,} of {drawn['global_batch']} images"),
        ("instructions", f"about {drawn['instructions']:,}"),
        ("workers", f"{workers}, ZeRO stage {zero}, {held}"),
        ("left out", f"{drawn['left_out']:,} samples of the split" if drawn["left_out"] else None),
    )
    shares = "".join(f"{at:>8.0%}" for at in drawn["progress"])
    lines += ["", f"{'task':<{_WIDTH}}{'samples':>10}{'passes':>8}   share of the positions at{shares}"]
    for task in TASKS:
        row = drawn["tasks"][task]
        parts = "".join(f"{share:>8.2f}" for share in row["shares"])
        lines.append(f"{task:<{_WIDTH}}{row['samples']:>10,}{row['passes']:>8.2f}{'':>28}{parts}")
    for phase in drawn["phases"][1:]:
        there = ", ".join(f"{phase['samples'][task]:,} {task}" for task in TASKS)
        lines.append(f"from step {phase['step']:g} on drawn from {there}")
    lines += ["", "Nothing was started. --json has the first batch and the settings of DeepSpeed."]
    return "\n".join(lines)


def ablation_text(plan: dict[str, Any]) -> str:
    """What `ablate` would do."""
    runs = plan["runs"]
    done = sum(run["finished"] for run in runs)
    lines = _rows(
        ("table", f"{plan['table']}: {plan['title']}"),
        ("store", plan["store"]),
        ("out", plan["out"]),
        ("runs", f"{len(runs)}, {done} of them finished; {_steps(plan['steps'])} each"),
    )
    width = max((len(run["name"]) for run in runs), default=0) + 2
    lines.append("")
    for run in runs:
        changed = ", ".join(f"{key}={value}" for key, value in _dotted(run["values"])) or "as the preset is"
        lines.append(f"{run['name']:<{width}}{'finished' if run['finished'] else 'to do':<10}{changed}")
    return "\n".join(lines)


def sweep_text(plan: dict[str, Any]) -> str:
    """What `sweep` would do."""
    lines = _rows(
        ("trials", f"{plan['trials']}, chosen by {plan['search']}, stopped by {plan['scheduler']}"),
        ("best by", plan["metric"]),
        ("store", plan["store"]),
        ("out", plan["out"]),
    )
    lines += ["", "drawn for each trial"]
    width = max(map(len, plan["space"])) + 2
    for key, draw in plan["space"].items():
        for name, arguments in draw.items():
            lines.append(f"{key:<{width}}{name}({', '.join(map(str, arguments))})")
    return "\n".join(lines)


def build_text(plan: dict[str, Any]) -> str:
    """What `data build` would do."""
    splits = ", ".join(f"{count:,} {name}" for name, count in plan["images_by_split"].items())
    own = ", ".join(f"{count:,} {name}" for name, count in plan["own_splits"].items())
    workers = plan["workers"]
    lines = _rows(
        ("source", plan["source"]),
        ("images", f"{plan['images']:,} ({splits})"),
        ("its own split", own or None),
        ("work", f"{plan['blocks']:,} blocks on {_processes(workers)}"),
        ("store", plan["store"]),
    )
    for key, value in (plan["endpoint"] or {}).items():
        number = isinstance(value, int | float)
        lines += _rows((key.replace("_", " "), f"{value:,}" if number else str(value)))
    if plan["files"]:
        told = plan["files"]
        lines += _rows(("files", f"{told['out']:,} used, {told['in'] - told['out']:,} not"))
        lines += [f"  {reason}: {count:,}" for reason, count in list(told["dropped"].items())[:_SHOWN]]
    return "\n".join([*lines, "", "Nothing was written."])


def _rows(*rows: tuple[str, str | None]) -> list[str]:
    return [f"{name:<{_WIDTH}}{value}" for name, value in rows if value is not None]


def _dotted(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _times(steps: int) -> str:
    return f", {steps} times a step" if steps > 1 else ""


def _steps(steps: int | str) -> str:
    return f"{steps:,} steps" if isinstance(steps, int) else steps


def _processes(workers: int | None) -> str:
    if workers is None:
        return "as many processes as the cluster or machine has cores"
    return f"{workers} processes" if workers else "this process"
