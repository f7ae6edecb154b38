"""At which resolution a model sees its training pictures: what somebody who maps with it must know."""

from typing import Any

import numpy as np

from pipelines.config import Config
from pipelines.store.index import StoreIndex, coded

#: File of a run folder with what :func:`seen_at` says.
SEEN_AT = "seen_at.json"
_SHARES = (0.05, 0.5, 0.95)
_COLUMNS = ("height", "width", "source")


def seen_at(index: StoreIndex, config: Config) -> dict[str, Any]:
    """The resolution of a run's training samples at the model's size.

    Args:
        index: of the training split.
        config: of the run.

    Returns:
        ``{"shrink": [low, middle, high], "gsd": [low, high] | None}``: pixels of a picture's side for one
        that the model sees (of 90 % of the samples, and the middle), and metres that such a pixel covers,
        where the store says what the pixels of all its sources cover. Empty for an index without sizes.
    """
    if not set(_COLUMNS) <= set(index.table.column_names) or not index.table.num_rows:
        return {}
    height, width = (index.table[name].to_numpy() for name in _COLUMNS[:2])
    shrink = np.maximum(height, width) / config.model.image_size
    low, middle, high = (float(v) for v in np.quantile(shrink, _SHARES))
    codes, sources = coded(index.table["source"])
    known = [index.card.get("scene_of", {}).get(source, {}).get("gsd") for source in sources]
    metres: list[float] | None = None
    if all(known):
        least, most = np.asarray(known, np.float64).T
        values = np.quantile(shrink * least[codes], 0.05), np.quantile(shrink * most[codes], 0.95)
        metres = [float(f"{value:.4g}") for value in values]
    return {"shrink": [round(v, 4) for v in (low, middle, high)], "gsd": metres}
