"""The synthetic source: as many scenes as asked for, each a scene of its own, the same for the same seed."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipelines.build.sources.base import SourceImage, SourceItem
from pipelines.build.sources.synthetic.layouts import FEATURES, LAYOUTS
from pipelines.build.sources.synthetic.scene import SceneComposer
from pipelines.labels.taxonomy import category_id


class SyntheticConfig(BaseModel):
    """Options of the synthetic source (``build.source``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    scenes: int = Field(2000, ge=1)
    size: int = Field(128, ge=96, le=2048, description="side of a scene in pixels; things scale with it")
    targets: tuple[int, int] = Field((6, 8), description="fewest and most things placed in a scene")
    gap: int = Field(17, ge=1, description="least distance in pixels between two things of a category")
    layouts: tuple[str, ...] = Field(tuple(LAYOUTS), min_length=1, description="kinds of scene")

    @field_validator("layouts")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in LAYOUTS]
        if unknown:
            raise ValueError(f"unknown layout {unknown[0]!r}: choose from {', '.join(LAYOUTS)}")
        return value


def vocabulary(layouts: Sequence[str]) -> frozenset[int]:
    """The categories that scenes of these kinds can show; whatever is drawn of them is labelled."""
    chosen = [LAYOUTS[name] for name in layouts]
    names = {thing.category for layout in chosen for thing in (*layout.must, *layout.may)}
    features = {layout.feature for layout in chosen}
    return frozenset(map(category_id, names | {FEATURES[name] for name in features if name in FEATURES}))


class SyntheticSource:
    """Generated aerial scenes with instance masks of what is visible.

    Args:
        options: number, size and kinds of scenes.
        seed: scene i is a function of (seed, i) alone, so more scenes never change the first ones.
    """

    name = "synthetic"
    licence = "Apache-2.0"
    scene = "a generated image"

    def __init__(self, options: SyntheticConfig, seed: int) -> None:
        self._options, self._seed = options, seed

    def items(self) -> Sequence[SourceItem]:
        """One item a scene."""
        keys = [f"scene_{i:06d}" for i in range(self._options.scenes)]
        return [SourceItem(key, key, key, {"number": i}) for i, key in enumerate(keys)]

    def read(self, item: SourceItem) -> SourceImage:
        """Draws the scene."""
        options = self._options
        rng = np.random.default_rng([self._seed, int(item.detail["number"])])
        layout = options.layouts[int(rng.integers(len(options.layouts)))]
        targets = int(rng.integers(options.targets[0], options.targets[1] + 1))
        scene = SceneComposer(rng, options.size, options.gap, targets).compose(layout)
        ground = int(np.count_nonzero(scene.instances == 0))
        return SourceImage(
            scene.pixels,
            scene.instances,
            scene.categories,
            scene.colours,
            ignored={"unlabelled_ground": ground},
            vocabulary=vocabulary(options.layouts),
        )
