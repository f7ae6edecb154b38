"""The sample plan: a pure function of index, schedule and seed."""

from pipelines.plan.plan import Plan, PlanBatch, positions_per_worker

__all__ = ["Plan", "PlanBatch", "positions_per_worker"]
