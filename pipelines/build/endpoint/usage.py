"""What was asked of the endpoint and paid."""

from dataclasses import asdict, dataclass

from pipelines.build.config import BuildConfig
from pipelines.build.endpoint.config import EndpointConfig


@dataclass
class Usage:
    """What was asked: requests that were paid, answers that were there already, tokens that were billed."""

    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, other: dict[str, int]) -> "Usage":
        """The sum with counts as :func:`dataclasses.asdict` gives them."""
        return Usage(**{name: value + other.get(name, 0) for name, value in asdict(self).items()})

    def cost(self, config: EndpointConfig) -> float:
        """Dollars by the configured prices."""
        return (self.prompt_tokens * config.input_price + self.completion_tokens * config.output_price) / 1e6


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
    """The sum of plain counts, with its price."""
    total = Usage()
    for usage in usages:
        total = total.plus(usage)
    return {**asdict(total), "dollars": round(total.cost(config), 4)}
