"""The sample plan: a pure function of index, schedule and seed."""

from pipelines.plan.plan import Plan, PlanBatch

__all__ = ["Plan", "PlanBatch"]
