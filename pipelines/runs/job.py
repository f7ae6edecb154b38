"""What a training worker is told, and the recorder that rank 0 keeps."""

from dataclasses import dataclass, field
from typing import Any

from pipelines.config import Config
from pipelines.tracking.tracker import TrackingRun


@dataclass(frozen=True)
class Job:
    """One run, as every worker gets it.

    Attributes:
        config: effective configuration.
        store: folder or ``s3://`` prefix.
        run: path of the run folder.
        tokenizer: folder of the tokenizer; for a remote run ``None``, workers fetch it from the run.
        plan_fingerprint: of the plan that the driver made; a worker that gets another one stops.
        config_hash: of what decides the run's course.
        tracking: the MLflow run.
        versions: of the libraries, for ``state.json``.
        lease: token of the job's hold on the run folder; empty where nobody else can be at work.
    """

    config: Config
    store: str
    run: str
    tokenizer: str | None
    plan_fingerprint: str
    config_hash: str
    tracking: TrackingRun
    versions: dict[str, str] = field(default_factory=dict)
    lease: str = ""


@dataclass
class Outcome:
    """How a loop ended.

    Attributes:
        steps: optimizer steps done.
        samples_seen: instructions trained on, each step counted once.
        checkpoint: folder of the newest checkpoint inside the run.
        mlflow_run_id: if MLflow was ever reached.
        unsent: logged rows that MLflow does not have.
        skipped: steps that were left out because their loss or gradient was not finite.
        exported: ``checkpoint`` and ``step`` of the exported model, and in words ``why`` it is that one.
        best: what stays as the best: ``metric``, ``value``, ``step``, ``checkpoint``, and of how many
            measured (``of``); ``None`` where none is kept.
        stopped: why training ended before the plan did.
    """

    steps: int
    samples_seen: int
    checkpoint: str
    mlflow_run_id: str | None
    unsent: int
    skipped: int = 0
    exported: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    stopped: str | None = None

    def plain(self) -> dict[str, Any]:
        """As a dictionary."""
        return dict(vars(self))
