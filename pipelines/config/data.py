"""The parts of the configuration tree that say which samples are drawn, when, and how they are read."""

import math
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator

from pipelines.config.section import Section


class SampleFilter(Section):
    """Which samples stay: those for which everything that is given holds.

    A sample without a region (a question with no answer in the picture) has neither area nor fill, and stays.
    """

    tasks: tuple[Literal["interactive", "referring", "reasoning"], ...] = Field(
        (), description="tasks that it is for; others stay whole; none: all tasks"
    )
    min_area: float | None = Field(None, ge=0, le=1, description="least share of the picture in the region")
    max_area: float | None = Field(None, gt=0, le=1, description="largest share of the picture in it")
    min_fill: float | None = Field(
        None, ge=0, le=1, description="least share of its tight box that the region fills"
    )
    max_fill: float | None = Field(None, gt=0, le=1, description="largest share of its tight box")
    subtasks: tuple[str, ...] = Field(
        (), description="such as box, point, attribute, collective, absent; none: all"
    )
    categories: tuple[int | str, ...] = Field((), description="ids or names of the taxonomy; none: all")
    sources: tuple[str, ...] = Field((), description="names of source datasets; none: all")

    @model_validator(mode="after")
    def _says_something(self) -> "SampleFilter":
        if not self.model_dump(exclude_defaults=True, exclude={"tasks"}):
            raise ValueError(
                f"it leaves nothing out; give one of {', '.join(list(type(self).model_fields)[1:])}"
            )
        for name in ("area", "fill"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{name}={least:g} is more than max_{name}={most:g}")
        return self


class SharePhase(Section):
    """Fixed task shares up to a point of training progress (an interactive-first warm-up)."""

    until: float = Field(gt=0, le=1, description="training progress in (0, 1] at which the phase ends")
    shares: dict[str, float] = Field(description="share of each task; normalised to sum 1")
    filters: tuple[SampleFilter, ...] = Field(
        (),
        description="the phase draws only samples that pass all of them, and data.filters; a phase with "
        "filters has its own passes over its samples",
    )


class AdaptiveConfig(Section):
    """Shares that follow each task's learning progress (``pts.schedule: adaptive``)."""

    segment_steps: int = Field(
        100, ge=4, description="steps with the same shares; a choice is made after each"
    )
    low: float = Field(0.5, ge=0, le=1, description="least factor on a task's share at the start")
    high: float = Field(2.0, ge=1, description="largest factor on it")
    smoothing: float = Field(0.5, ge=0, lt=1, description="weight of the segment before in the next shares")


class PTSConfig(Section):
    """Progressive task scheduling."""

    schedule: Literal["linear", "cosine", "step", "constant", "adaptive", "recorded"] = Field(
        "linear",
        description="constant is the paper's average sampling; adaptive follows each task's learning "
        "progress; recorded follows pts.record (an adaptive run leaves its own in replay.yaml)",
    )
    adaptive: AdaptiveConfig = Field(default_factory=AdaptiveConfig)
    record: list[tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]] = Field(
        default_factory=list,
        description="of schedule recorded: positions of each task (interactive, referring, reasoning) by "
        "segment; the last segment's shares hold until the run ends",
    )
    end_weight: float = Field(0.7, ge=0, le=1, description="interactive weight w(1); the paper's 0.7")
    base: Literal["natural"] | dict[str, float] = Field(
        "natural", description="shares at the start: the index's own, or one number a task"
    )
    warmup: list[SharePhase] = Field(default_factory=list, description="phases that come before the schedule")

    @model_validator(mode="after")
    def _record_fits(self) -> "PTSConfig":
        if self.schedule == "recorded":
            if not self.record:
                raise ValueError(
                    "pts.schedule=recorded needs pts.record, a list of segments such as [[8, 6, 2]]"
                )
            if self.warmup:
                raise ValueError("a recorded schedule is whole: leave pts.warmup out")
        if self.schedule == "adaptive" and any(phase.filters for phase in self.warmup):
            raise ValueError(
                "pts.warmup with filters goes with a schedule that is known beforehand; leave the filters "
                "out of pts.warmup, or use another pts.schedule than adaptive"
            )
        if self.schedule != "recorded" and self.record:
            raise ValueError(f"pts.record is of no use with pts.schedule={self.schedule}; use recorded")
        return self


class AugmentConfig(Section):
    """Changes of the pictures that training reads, drawn from (seed, position); all off by default.

    What an instruction says stays true of the picture: see docs/samples.md for what that allows.
    """

    brightness: float = Field(0.0, ge=0, le=0.5, description="all pixels times 1 - this to 1 + this")
    contrast: float = Field(
        0.0, ge=0, le=0.5, description="distance from the mean grey times 1 - this to 1 + this"
    )
    saturation: float = Field(
        0.0, ge=0, le=0.5, description="distance from the pixel's grey times 1 - this to 1 + this"
    )
    blur: float = Field(0.0, ge=0, le=3, description="largest standard deviation of a blur, in pixels")
    scale: tuple[float, float] = Field(
        (1.0, 1.0),
        description="least and largest factor on the size of things: below 1 the picture is shown smaller on "
        "black, above 1 a part of it that holds the region",
    )
    flips: bool = Field(
        False,
        description="flip pictures of interactive samples with their coordinates, and of others where the "
        "store has their text for it (build.instruct.views)",
    )
    turns: bool = Field(False, description="turn the same pictures by quarters")

    @model_validator(mode="after")
    def _scale_holds_one(self) -> "AugmentConfig":
        low, high = self.scale
        if not 0.25 <= low <= 1.0 <= high <= 4.0:
            raise ValueError(
                f"scale=[{low:g}, {high:g}]: give a factor from 0.25 to 1 and one from 1 to 4, "
                "such as [0.8, 1.5]"
            )
        return self

    @property
    def active(self) -> bool:
        """Whether anything is changed."""
        return self != AugmentConfig()


class DataConfig(Section):
    """How samples are drawn and read."""

    split: str = "train"
    filters: tuple[SampleFilter, ...] = Field(
        (), description="leaves out the samples that do not pass all of them"
    )
    source_shares: dict[str, NonNegativeFloat] = Field(
        default_factory=dict,
        description="share of each source among the samples of a task, whatever the store holds; all of its "
        "sources are named, 0 leaves one out; none: as many as there are. Where a source lacks a task, the "
        "others share it",
    )
    instructions_per_image: int = Field(
        1, ge=1, description="a plan position is one image with up to k of its instructions of one task"
    )
    recut: bool = Field(
        False,
        description="cut an image's instructions into other groups at each pass (instructions_per_image > 1)",
    )
    decode: Literal["worker", "actors"] = Field(
        "worker", description="decode in the training worker, or in Ray Data actors that scale out"
    )
    actors: int = Field(
        2,
        ge=1,
        description="most decoding actors of all workers together, each of a CPU (decode: actors); a worker "
        "has at least one of its own",
    )
    block_positions: int = Field(128, ge=1, description="plan positions in one Ray Data block")
    prefetch_batches: int = Field(2, ge=0)
    length_multiple: int = Field(
        1,
        ge=1,
        description="sequences are padded to a multiple of this, and the row of a batch's distinct tokens to "
        "one an instruction: train.compile then meets few shapes (16 to 64); 1: nothing is padded twice",
    )
    min_pixels: float = Field(
        0,
        ge=0,
        description="leaves out samples whose region has fewer pixels at the model's size; 0 keeps all",
    )
    augment: AugmentConfig = AugmentConfig()
    max_bad_share: float = Field(
        0.01, ge=0, le=1, description="share of quarantined records that stops a run"
    )

    @model_validator(mode="after")
    def _sources_share(self) -> "DataConfig":
        if self.source_shares and not 0 < sum(self.source_shares.values()) < math.inf:
            raise ValueError("data.source_shares needs a share above 0, and numbers that have an end")
        return self
