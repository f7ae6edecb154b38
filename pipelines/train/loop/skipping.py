"""Steps whose loss or gradient is not finite: each leaves a diagnostic file, and so many may be left out."""

import json
import logging

from pipelines.runs.folder import RunFolder
from pipelines.train.engine.step import NonFiniteLossError

logger = logging.getLogger(__name__)
DIAGNOSTICS = "diagnostics"


class Skipping:
    """Judges alike on every rank; writes on rank 0.

    Args:
        run: where the files are written.
        allowed: steps that may be left out in the whole run.
        count: left out before the first step that is trained now.
        rank: of this process.
    """

    def __init__(self, run: RunFolder, allowed: int, count: int, rank: int) -> None:
        self._run, self._allowed, self._rank = run, allowed, rank
        self.count = count

    def met(self, error: NonFiniteLossError) -> None:
        """Takes note of a step that the engine left out.

        Raises:
            NonFiniteLossError: it is one too many.
        """
        self.count += 1
        step = error.result.step
        name = f"{DIAGNOSTICS}/non-finite-step-{step:08d}.json"
        where = f"its sample ids are in {self._run.path}/{name}"
        if self._rank == 0:
            content = {"step": step, "what": error.what, "ranks": error.batches}
            self._run.local(name).write_text(json.dumps(content, indent=2, allow_nan=False), encoding="utf-8")
            self._run.publish(name)
        if self.count > self._allowed:
            advice = f"{where}; look at these samples, lower train.lr, or let "
            if self._allowed:
                advice += f"more than {self._allowed} steps be left out: recovery.max_skipped_steps"
            else:
                advice += "a number of steps be left out: recovery.max_skipped_steps"
            raise NonFiniteLossError(error.result, error.what, error.batches, advice) from error
        if self._rank == 0:
            logger.warning(
                "the %s of step %d is not finite: the step is left out, %d of at most %d; %s",
                error.what,
                step,
                self.count,
                self._allowed,
                where,
            )
