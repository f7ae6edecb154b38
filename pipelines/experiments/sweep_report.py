"""What a sweep leaves to read: ``sweep.json``, ``sweep.md``, ``sweep.png``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

_COLORS = {"finished": "#2f6f9f", "stopped early": "#b0752b", "failed": "#a03030"}


def write_sweep(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes the three files; returns their paths."""
    paths = [folder / f"sweep.{end}" for end in ("json", "md", "png")]
    paths[0].write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    paths[1].write_text(sweep_markdown(result), encoding="utf-8")
    plot_sweep(result, paths[2])
    return paths


def sweep_markdown(result: Mapping[str, Any]) -> str:
    """Trials from best to worst."""
    keys = list(result["trials"][0]["values"]) if result["trials"] else []
    lines = [
        f"# Sweep: {result['metric']} ({result['mode']}), {result['search']} search, {result['scheduler']}",
        "",
        "| " + " | ".join(["trial", result["metric"], "state", "step", *keys]) + " |",
        "|" + "---|" * (4 + len(keys)),
    ]
    for trial in result["trials"]:
        value = "–" if trial["value"] is None else f"{trial['value']:.4f}"
        cells = [trial["name"], value, trial["state"], f"{trial['step']}/{result['steps']}"]
        cells += [_short(trial["values"].get(key)) for key in keys]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [f"\n{t['name']} failed: {t['error']}" for t in result["trials"] if t["error"]]
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plot_sweep(result: Mapping[str, Any], path: Path) -> None:
    """Each trial's course of the metric; colours say how it ended."""
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    shown = set()
    for trial in result["trials"]:
        if not trial["curve"]:
            continue
        steps, values = zip(*trial["curve"], strict=True)
        label = trial["state"] if trial["state"] not in shown else None
        shown.add(trial["state"])
        axis.plot(
            steps, values, marker="o", markersize=3, color=_COLORS[trial["state"]], label=label, alpha=0.8
        )
        axis.annotate(trial["name"][-5:], (steps[-1], values[-1]), fontsize=7, xytext=(3, 0),
                      textcoords="offset points")  # fmt: skip
    axis.set_xlabel("optimizer step")
    axis.set_ylabel(result["metric"])
    axis.set_title(f"{len(result['trials'])} trials, {result['scheduler']}")
    if shown:
        axis.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
