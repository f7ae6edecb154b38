"""Training: the DeepSpeed engine, the loop under Ray Train, checkpoints, records and tracking.

``pipelines.train.train`` runs a job; it is imported when asked for, so that the engine works without Ray.
"""

from typing import Any

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from pipelines.train.driver.launcher import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
