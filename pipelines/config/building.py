"""Settings of dataset construction: the rules of the paper's section 8 with its numbers as defaults."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.config.endpoint import EndpointConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TileConfig(_Section):
    """Windows cut from each image."""

    size: int = Field(512, ge=32, description="side of a tile in pixels")
    stride: int = Field(256, ge=16)


class RuleConfig(_Section):
    """Which regions may become samples."""

    min_component_px: int = Field(
        16, ge=1, description="a smaller connected component is noise of the mask, not a region"
    )
    min_component_share: float = Field(
        0.0005, ge=0, lt=1, description="the same as a share of the tile, for components of semantic masks"
    )
    min_area: float = Field(0.005, ge=0, description="smallest region as a share of the tile")
    max_area: float = Field(0.70, le=1)
    max_instances: int = Field(6, ge=1, description="a category with more regions in the tile is left out")
    isolation_px: int = Field(15, ge=0, description="no other region of the category within this radius")
    per_category: int = Field(2, ge=1, description="regions per category and tile, drawn at random")


class InstructConfig(_Section):
    """Instruction writing."""

    small_region_px: int = Field(200, ge=1, description="a smaller region gets one point")
    point_counts: tuple[float, float, float] = (0.6, 0.2, 0.2)
    diversity_quantile: float = Field(
        0.9, ge=0, le=1, description="reasoning only on tiles at or above this quantile of category count"
    )
    views: bool = Field(
        False,
        description="write each text of the embedded writer for the flipped and turned tile as well, so that "
        "data.augment.flips and turns of a training may turn those pictures too",
    )
    collective: float = Field(
        0.0,
        ge=0,
        le=1,
        description="instructions for all regions of a category ('all the buildings'), for each other one of "
        "its task (referring, reasoning) on a tile; a tile without others counts as one; 0: none",
    )
    absent: float = Field(
        0.0,
        ge=0,
        le=1,
        description="instructions for a category that the source labels and the tile does not show, with an "
        "empty mask, counted alike; 0: none",
    )
    absent_unlabelled: float = Field(
        0.0,
        ge=0,
        le=1,
        description="largest share of a tile that may be without a label (ignored, unknown, no data; not a "
        "table's background) where something is said to be absent",
    )


class PasteConfig(_Section):
    """Objects of training pictures pasted into others: ``pipelines/build/paste.py``."""

    copies: int = Field(
        0, ge=0, description="further tiles for each training tile, with objects of other pictures pasted in"
    )
    instances: tuple[int, int] = Field(
        (2, 6), description="fewest and most objects that are pasted into a tile"
    )
    scale: tuple[float, float] = Field((0.8, 1.25), description="factor on an object's sides, from and to")
    min_area: float = Field(0.0005, gt=0, description="smallest object as a share of its tile")
    max_area: float = Field(0.12, le=1, description="largest object as a share of its tile")

    @model_validator(mode="after")
    def _ranges(self) -> "PasteConfig":
        if not 1 <= self.instances[0] <= self.instances[1]:
            raise ValueError(
                f"instances {list(self.instances)}: give two numbers from 1 on, the smaller first"
            )
        if not 0.1 <= self.scale[0] <= self.scale[1] <= 10:
            raise ValueError(
                f"scale {list(self.scale)}: give two factors between 0.1 and 10, the smaller first"
            )
        if self.min_area > self.max_area:
            raise ValueError(f"min_area {self.min_area:g} is above max_area {self.max_area:g}; lower it")
        return self


class SplitConfig(_Section):
    """Shares of scenes per split; the rest is for training, nothing where they make 1."""

    val: float = Field(0.1, ge=0, le=1, description="share of the scenes; 1 makes a store without training")
    test: float = Field(0.0, ge=0, le=1)
    own: bool | None = Field(
        None,
        description="take the source's own splits instead, where it has them; null: of benchmarks and other "
        "ready samples, which always keep theirs, not of other sources",
    )

    @model_validator(mode="after")
    def _fits(self) -> "SplitConfig":
        if self.val + self.test > 1 + 1e-9:
            raise ValueError(f"val {self.val:g} and test {self.test:g} are more than all scenes; lower one")
        return self


class BoxConfig(_Section):
    """How boxes become masks."""

    model: str | None = Field(
        None, description="folder of a SAM or SAM 2 model prompted with each box; null fills the polygons"
    )
    device: str = Field("cpu", description="of the model, such as cuda")
    boxes_at_once: int = Field(32, ge=1, description="prompts in one pass of the mask decoder")


class BuildConfig(_Section):
    """Everything that decides the bytes of a store, beside the source itself."""

    seed: int = 0
    tile: TileConfig = TileConfig()
    rules: RuleConfig = RuleConfig()
    instruct: InstructConfig = InstructConfig()
    paste: PasteConfig = PasteConfig()
    split: SplitConfig = SplitConfig()
    boxes: BoxConfig = BoxConfig()
    endpoint: EndpointConfig = EndpointConfig()
    category_cap: int | None = Field(
        None,
        ge=1,
        description="most samples of a category and task; null: none. Those without a category all stay",
    )
    shard_bytes: int = Field(256 * 1024 * 1024, ge=1024)
    max_unknown_share: float = Field(
        0.02, ge=0, le=1, description="share of a mask that may have unknown colours"
    )
    max_bad_share: float = Field(
        0.0, ge=0, le=1, description="share of unusable images that is borne (quarantined and named)"
    )
    max_unmatched_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of files and rows that may match nothing (they are counted and named)",
    )
    block_images: int = Field(32, ge=1, description="images of one resumable unit of work")
    workers: int | None = Field(
        None,
        ge=0,
        description="parallel Ray tasks; null: one a CPU of the cluster, or of this machine without one; 0 "
        "works in this process, without Ray",
    )
    source: dict[str, Any] = Field(default_factory=dict, description="options of the source adapter")

    @model_validator(mode="after")
    def _needs_the_embedded_writer(self) -> "BuildConfig":
        if self.endpoint.model is None:
            return self
        if self.instruct.views:
            raise ValueError(
                "instruct.views=true needs meanings that are known: those of the embedded writer; leave "
                "endpoint.model out, or use instruct.views=false"
            )
        if self.paste.copies:
            raise ValueError(
                "paste.copies: pasted tiles are described by the embedded writer alone; leave endpoint.model "
                "out, or use paste.copies=0"
            )
        return self
