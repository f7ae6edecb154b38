"""One tree of settings for a job, checked before anything starts."""

from pipelines.config.job import (
    CheckpointConfig,
    Config,
    EvaluationConfig,
    InitConfig,
    RecoveryConfig,
    ScaleConfig,
    TokenizerConfig,
    TrackingConfig,
    merge,
    with_values,
)

__all__ = [
    "CheckpointConfig",
    "Config",
    "EvaluationConfig",
    "InitConfig",
    "RecoveryConfig",
    "ScaleConfig",
    "TokenizerConfig",
    "TrackingConfig",
    "merge",
    "with_values",
]
