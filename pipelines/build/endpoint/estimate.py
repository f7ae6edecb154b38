"""What a build will ask of the endpoint and cost, before the first request."""

from collections.abc import Sequence
from typing import Any

from pipelines.build.config import BuildConfig
from pipelines.build.endpoint.config import EndpointConfig
from pipelines.build.endpoint.render import image_tokens
from pipelines.build.process import process_item
from pipelines.build.sources.base import Source, SourceItem, UnusableImage
from pipelines.build.stages import StageCounts
from unigeoseg.errors import UserError
from unigeoseg.tasks import REASONING, REFERRING

#: Images that are tried without the endpoint, and tokens of a question's and an answer's text.
_TRIED, _QUESTION_TOKENS, _ANSWER_TOKENS = 8, 260, 70


def estimate(source: Source, items: Sequence[SourceItem], config: BuildConfig) -> dict[str, Any]:
    """Requests, tokens and dollars, from what the rules leave of a few evenly spaced images.

    An upper estimate: nothing is taken to fail a judge, and no answer to be there already.

    Returns:
        ``{"images_tried", "requests", "prompt_tokens", "completion_tokens", "dollars"}``.

    Raises:
        UserError: above ``endpoint.max_cost``.
    """
    tried = min(_TRIED, len(items))
    plain, counts = config.model_copy(update={"endpoint": EndpointConfig()}), StageCounts()
    for n in range(tried):
        try:
            process_item(source, items[n * len(items) // tried], plain, counts)
        except UnusableImage:
            continue
    rows = {row["name"]: row for row in counts.rows()}
    scale = len(items) / max(tried, 1)
    regions, questions = rows[REFERRING]["in"] * scale, rows[REASONING]["out"] * scale
    judges = len(config.endpoint.judges)
    # A region: a phrase, and mostly a two-stage question; each judge sees the region and both samples.
    requests = round(regions + 2 * questions + judges * (2 * regions + questions))
    size = config.tile.size
    prompt = requests * (_QUESTION_TOKENS + image_tokens(size, size, config.endpoint.detail))
    completion = requests * _ANSWER_TOKENS
    dollars = (prompt * config.endpoint.input_price + completion * config.endpoint.output_price) / 1e6
    found = {
        "images_tried": tried,
        "requests": requests,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "dollars": round(dollars, 2),
    }
    most = config.endpoint.max_cost
    if most is not None and dollars > most:
        raise UserError(
            f"the endpoint would cost about ${dollars:.2f} for {requests} requests, endpoint.max_cost is "
            f"${most:.2f}: raise it, take fewer images, or lower rules.per_category"
        )
    return found
