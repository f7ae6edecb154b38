"""Settings of the endpoint."""

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

#: What a judge scores from 1 to 5: of a region before anything is written, and of a finished sample.
REGION_DIMENSIONS = ("soundness", "distinctness", "unambiguity")
SAMPLE_DIMENSIONS = ("correctness", "uniqueness", "clarity")


class EndpointConfig(BaseModel):
    """A chat endpoint with images (OpenAI, or vLLM and its like) that writes, and models that judge.

    The key is read from the environment only: of this process, and of the nodes where tasks run. Sizes,
    prices and speed limits never change what is written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(
        None, description="writes referring and reasoning text; null: the embedded writer"
    )
    judges: tuple[str, ...] = Field(
        (), max_length=2, description="models that judge regions and samples; all must agree to keep one"
    )
    thresholds: dict[str, int] = Field(
        dict.fromkeys((*REGION_DIMENSIONS, *SAMPLE_DIMENSIONS), 4), description="least score, 1 to 5"
    )
    detail: Literal["low", "high"] = Field("high", description="resolution at which images are looked at")
    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: int = Field(400, ge=32, description="longest answer")
    base_url: str | None = Field(None, description="such as http://127.0.0.1:8000/v1; null: OpenAI")
    key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the key")
    concurrency: int = Field(8, ge=1, description="requests under way, all workers together")
    requests_per_minute: int | None = Field(None, ge=1, description="all workers together; null: no limit")
    timeout_s: float = Field(60.0, gt=0)
    retries: int = Field(6, ge=0, description="after 408, 409, 429, 5xx, timeouts and lost connections")
    cache: str | None = Field(
        None, description="folder or s3:// prefix of paid answers; null: beside the store, STORE-answers"
    )
    input_price: float = Field(2.5, ge=0, description="dollars a million tokens, for the estimate")
    output_price: float = Field(10.0, ge=0)
    max_cost: float | None = Field(
        None, ge=0, description="dollars; a build whose estimate is above is refused"
    )

    @field_validator("key_env", mode="after")
    @classmethod
    def _named(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_]\w*", value):
            raise ValueError("this is no name of an environment variable; never write the key itself here")
        return value

    @field_validator("base_url", mode="after")
    @classmethod
    def _without_password(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("give http:// or https://, a host, and no user or password")
        return value

    @model_validator(mode="after")
    def _whole(self) -> "EndpointConfig":
        known = {*REGION_DIMENSIONS, *SAMPLE_DIMENSIONS}
        if set(self.thresholds) != known or not all(1 <= v <= 5 for v in self.thresholds.values()):
            raise ValueError(f"endpoint.thresholds needs a score from 1 to 5 for each of {sorted(known)}")
        if self.judges and self.model is None:
            raise ValueError("endpoint.judges without endpoint.model: name the model that writes, too")
        return self


#: Settings that decide how the endpoint is reached and what it may cost, never what is asked.
WITHOUT_EFFECT = {
    "base_url",
    "key_env",
    "concurrency",
    "requests_per_minute",
    "timeout_s",
    "retries",
    "cache",
    "input_price",
    "output_price",
    "max_cost",
}
