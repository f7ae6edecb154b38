"""How often the workers of a run may be started anew."""

from contextlib import suppress
from typing import Any

from pipelines.cluster_view.ray_private import leaving_nodes
from pipelines.runs.folder import RunFolder
from pipelines.runs.manifest import committed_steps
from pipelines.storage.filesystem import storage_errors
from pipelines.storage.retry import Retry
from pipelines.train.driver.ray_train_private import FailurePolicy, WorkerGroupError


class FailuresInARow(FailurePolicy):
    """Ray Train's policy, with a count that starts anew at each new checkpoint.

    Ray Train counts failures over the whole run, so a run of many days on machines that come and go would
    reach any limit. What the limit is for is a run that fails again and again at the same place.
    A node that was announced to go does not count at all. Ray Train has a budget of its own for those, but
    charges it only when it sees the lost worker before the others' broken connections.

    Args:
        failure_config: Ray Train's, with the limit.
        run: path of the run folder.
    """

    def __init__(self, failure_config: Any, run: str) -> None:
        super().__init__(failure_config)
        self._run, self._newest = run, -1

    def make_decision(self, training_failed_error: Any) -> Any:
        """Whether to start anew after an error."""
        with suppress(*storage_errors()):  # then the failure counts
            newest = self._newest_checkpoint()
            if newest > self._newest:
                self._newest = newest
                self.forget_failures()
        if isinstance(training_failed_error, WorkerGroupError) and leaving_nodes():
            return self.decide_uncounted(training_failed_error)
        return super().make_decision(training_failed_error)

    def _newest_checkpoint(self) -> int:
        run = RunFolder(self._run, Retry(patience_s=0, refused_s=0))
        try:
            return max(committed_steps(run), default=-1)
        finally:
            run.close()
