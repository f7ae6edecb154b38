"""What a build will ask of the endpoint and cost, before the first request."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipelines.build.balance import cutoff_of
from pipelines.build.endpoint.render import image_tokens
from pipelines.build.endpoint.usage import dollars
from pipelines.build.process import process_item
from pipelines.build.sources.base import Source, SourceItem, UnusableImage
from pipelines.config.building import BuildConfig
from pipelines.labels.stages import StageCounts
from unigeoseg.errors import UserError
from unigeoseg.tasks import REASONING, REFERRING

#: Images that are tried without the endpoint, and tiles of each.
IMAGES, _TILES = 8, 16
#: Tokens of a question's and an answer's text.
_QUESTION_TOKENS, _ANSWER_TOKENS = 260, 70


def estimate(source: Source, items: Sequence[SourceItem], images: int, config: BuildConfig) -> dict[str, Any]:
    """Requests, tokens and dollars, from what the rules leave of a few images.

    An upper estimate: nothing is taken to fail a judge, and no answer to be there already.

    Args:
        source: adapter.
        items: the images that are tried.
        images: how many the source has.
        config: of the build.

    Returns:
        ``{"images_tried", "tiles_tried", "tiles", "requests", "prompt_tokens", "completion_tokens",
        "dollars"}``.

    Raises:
        UserError: above ``endpoint.max_cost``.
    """
    counts, tried = StageCounts(), 0
    shown: Counter[int] = Counter()
    asked: list[tuple[int, int]] = []
    for item in items:
        here = StageCounts()
        try:
            for draft in process_item(source, item, config, here, most=_TILES):
                before = _left(here, REASONING)
                draft.finish()
                shown[draft.categories] += 1
                asked.append((draft.categories, _left(here, REASONING) - before))
        except UnusableImage:
            continue
        counts.merge(here.rows())
        tried += 1
    cutoff = cutoff_of(shown, config)
    rows = {row["name"]: row for row in counts.rows()}
    tiles = rows["tile"]["in"] * images / max(tried, 1)
    scale = tiles / max(rows["tile"]["out"], 1)
    regions = rows[REFERRING]["in"] * scale
    questions = sum(n for categories, n in asked if categories >= cutoff) * scale
    judges = len(config.endpoint.judges)
    # A region: a phrase, and mostly a two-stage question; each judge sees the region and both samples.
    requests = round(regions + 2 * questions + judges * (2 * regions + questions))
    size = config.tile.size
    prompt = requests * (_QUESTION_TOKENS + image_tokens(size, size, config.endpoint.detail))
    completion = requests * _ANSWER_TOKENS
    cost = dollars(prompt, completion, config.endpoint)
    most = config.endpoint.max_cost
    if most is not None and cost > most:
        raise UserError(
            f"the endpoint would cost about ${cost:.2f} for {requests} requests, endpoint.max_cost is "
            f"${most:.2f}: raise it, take fewer images, or lower rules.per_category"
        )
    return {
        "images_tried": tried,
        "tiles_tried": rows["tile"]["out"],
        "tiles": round(tiles),
        "requests": requests,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "dollars": round(cost, 2),
    }


def _left(counts: StageCounts, stage: str) -> int:
    """How many have passed a stage so far."""
    return next(int(row["out"]) for row in counts.rows() if row["name"] == stage)
