"""The steps that need the whole source: the diversity quantile of reasoning, and the cap per category."""

from collections import defaultdict
from typing import Any

import numpy as np

from pipelines.build.config import BuildConfig
from pipelines.build.seeds import digest
from pipelines.build.stages import StageCounts
from unigeoseg.tasks import REASONING


def samples_to_drop(reports: list[dict[str, Any]], config: BuildConfig, counts: StageCounts) -> set[str]:
    """Identifiers of the samples that do not enter the store.

    Args:
        reports: of all blocks, in order.
        config: ``instruct.diversity_quantile`` and ``category_cap``.
        counts: receives the stages "diversity" and "balance".
    """
    diversity = [n for report in reports for n in report["diversity"]]
    cutoff = float(np.quantile(diversity, config.instruct.diversity_quantile)) if diversity else 0.0
    candidates = [row for report in reports for row in report["candidates"]]
    plain = {i for i, task, _, categories in candidates if task == REASONING and categories < cutoff}
    reasoning = sum(task == REASONING for _, task, _, _ in candidates)
    counts.add("diversity", reasoning, reasoning - len(plain), {"low_diversity": len(plain)})
    groups: dict[tuple[str, int], list[str]] = defaultdict(list)
    for identity, task, category, _ in candidates:
        if identity not in plain:
            groups[task, category].append(identity)
    surplus: set[str] = set()
    if config.category_cap is not None:
        for members in groups.values():
            ranked = sorted(members, key=lambda i: (digest(config.seed, "cap", i), i))
            surplus.update(ranked[config.category_cap :])
    total = sum(map(len, groups.values()))
    counts.add("balance", total, total - len(surplus), {"category_cap": len(surplus)})
    return plain | surplus
