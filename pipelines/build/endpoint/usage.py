"""What was asked of the endpoint and paid."""

from dataclasses import asdict, dataclass

from pipelines.config.building import BuildConfig
from pipelines.config.endpoint import EndpointConfig


@dataclass
class Usage:
    """What was asked.

    Attributes:
        requests: that were paid.
        prompt_tokens: of these.
        completion_tokens: of these.
        cached: answers that were there already, paid by a run that was interrupted, or by another build.
        cached_prompt_tokens: what they were billed when they were paid.
        cached_completion_tokens: likewise.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: int = 0
    cached_prompt_tokens: int = 0
    cached_completion_tokens: int = 0

    def plus(self, other: dict[str, int]) -> "Usage":
        """The sum with counts as :func:`dataclasses.asdict` gives them."""
        return Usage(**{name: value + other.get(name, 0) for name, value in asdict(self).items()})


def spent(config: BuildConfig, store: str) -> Usage:
    """What this process has asked so far."""
    if config.endpoint.model is None:
        return Usage()
    from pipelines.build.endpoint.stage import endpoint_of  # the client takes a second to load

    return endpoint_of(config, store).usage


def since(before: Usage, now: Usage) -> dict[str, int]:
    """What was asked between two moments, as plain counts."""
    earlier = asdict(before)
    return {name: value - earlier[name] for name, value in asdict(now).items()}


def bill(usages: list[dict[str, int]], config: EndpointConfig) -> dict[str, float]:
    """The sum of plain counts, with the price of what was paid and of what was there already."""
    total = Usage()
    for usage in usages:
        total = total.plus(usage)
    paid = dollars(total.prompt_tokens, total.completion_tokens, config)
    before = dollars(total.cached_prompt_tokens, total.cached_completion_tokens, config)
    return {**asdict(total), "dollars": round(paid, 4), "cached_dollars": round(before, 4)}


def dollars(prompt_tokens: float, completion_tokens: float, config: EndpointConfig) -> float:
    """Price of tokens by the configured prices."""
    return (prompt_tokens * config.input_price + completion_tokens * config.output_price) / 1e6
