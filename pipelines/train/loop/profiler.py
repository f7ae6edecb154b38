"""Traces of chosen steps on chosen ranks: what each operation took, for a person and for a trace viewer."""

import logging
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from pipelines.config.training import ProfileConfig
from pipelines.runs.folder import RunFolder

logger = logging.getLogger(__name__)
PROFILES = "profile"
#: Lines of the table.
_ROWS = 30


class StepProfiler:
    """Runs ``torch.profiler`` over the steps that the configuration names; a context manager.

    Writes ``profile/rank-R-steps-A-B.json.gz`` (open it in Perfetto) and, as text, the operations that took
    the longest. The step before the first one is run under the profiler too and not recorded, as a profiler's
    start takes its time.

    Args:
        settings: which steps and ranks.
        run: where the files go.
        rank: of this process.
    """

    def __init__(self, settings: ProfileConfig, run: RunFolder, rank: int) -> None:
        self._settings, self._run, self._rank = settings, run, rank
        self._profile: Any = None
        self._traced: list[int] = []

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._profile is not None:  # training ended inside the range
            self._end()

    def before(self, step: int) -> None:
        """Called before a step."""
        if self._settings.steps is None or self._rank not in self._settings.ranks:
            return
        first, last = self._settings.steps
        if self._profile is None and max(0, first - 1) <= step <= last:
            self._begin()
        if self._profile is not None and first <= step <= last:
            self._traced.append(step)

    def after(self, step: int) -> None:
        """Called after a step."""
        if self._profile is None:
            return
        assert self._settings.steps is not None
        first, last = self._settings.steps
        if step >= last:
            self._end()
        elif step == first - 1:
            self._restart()

    def _begin(self) -> None:
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile = torch.profiler.profile(
            activities=kinds,
            record_shapes=self._settings.shapes,
            profile_memory=self._settings.memory,
            with_stack=self._settings.stacks,
        )
        self._profile.start()

    def _restart(self) -> None:
        self._profile.stop()
        self._begin()

    def _end(self) -> None:
        profile, self._profile = self._profile, None
        profile.stop()
        if not self._traced:
            return
        name = f"{PROFILES}/rank-{self._rank}-steps-{self._traced[0]}-{self._traced[-1]}"
        trace, table = (self._run.local(f"{name}.{ending}") for ending in ("json.gz", "txt"))
        trace.parent.mkdir(parents=True, exist_ok=True)
        profile.export_chrome_trace(str(trace))
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        found = profile.key_averages(group_by_input_shape=self._settings.shapes)
        Path(table).write_text(found.table(sort_by=order, row_limit=_ROWS), encoding="utf-8")
        self._run.publish(f"{name}.json.gz", f"{name}.txt")
        logger.info("%s/%s.json.gz: a trace of steps", self._run.path, name)
