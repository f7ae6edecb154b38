"""One question to the endpoint: cached, bounded, retried, and its answer validated."""

import os
import threading
import time
from dataclasses import asdict
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from openai import APIConnectionError, APIStatusError, BadRequestError, OpenAI
from pydantic import BaseModel, ValidationError

from pipelines.build.endpoint.answers import AnswerCache
from pipelines.build.endpoint.prompts import AGAIN, SYSTEM
from pipelines.build.endpoint.schemas import sent_schema
from pipelines.build.endpoint.usage import Usage
from pipelines.config.endpoint import EndpointConfig
from unigeoseg.errors import UserError

_Schema = TypeVar("_Schema", bound=BaseModel)
#: How often a question is put when its answer is not the JSON asked for.
_ASKS = 2
#: Codes with which an endpoint rejects one question for what it shows or says (OpenAI's and Azure's).
_FILTERED = frozenset(
    {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation", "moderation_blocked"}
)


class NoAnswer(Exception):
    """The model refused, or gave nothing valid.

    Attributes:
        reason: ``refused`` or ``invalid_answer``; counted.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions cross process borders by their arguments."""
        return type(self), (self.reason,)


class _Asked:
    """A question that some thread is putting."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Endpoint:
    """Asks one endpoint; may be used by many threads.

    Args:
        config: where it is and what limits hold.
        cache: paid answers.
        workers: processes that share the limits.

    Raises:
        UserError: no key for OpenAI's own endpoint.
    """

    def __init__(self, config: EndpointConfig, cache: AnswerCache, workers: int) -> None:
        key = os.environ.get(config.key_env)
        if not key and config.base_url is None:
            raise UserError(
                f"endpoint.model={config.model} needs a key: set the environment variable {config.key_env}, "
                "or endpoint.base_url of a server that needs none"
            )
        self._config, self._cache, self._key = config, cache, key
        # The client waits and doubles the wait between its tries, or as long as Retry-After says.
        self._client = OpenAI(
            api_key=key or "none",
            base_url=config.base_url,
            timeout=config.timeout_s,
            max_retries=config.retries,
        )
        self._under_way = threading.BoundedSemaphore(max(1, config.concurrency // max(workers, 1)))
        limit = config.requests_per_minute
        self._gap = 60.0 * max(workers, 1) / limit if limit else 0.0
        self._next, self._lock = 0.0, threading.Lock()
        self._asked: WeakValueDictionary[str, _Asked] = WeakValueDictionary()
        self.usage = Usage()

    def ask(self, model: str, text: str, image: str, schema: type[_Schema]) -> _Schema:
        """The validated answer to a text with an image.

        Args:
            model: which one answers.
            text: the question.
            image: a data URL.
            schema: what the answer must be.

        Raises:
            NoAnswer: refused, or invalid twice.
            UserError: the endpoint cannot be used, also after the retries.
        """
        picture = {"type": "image_url", "image_url": {"url": image, "detail": self._config.detail}}
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": [{"type": "text", "text": text}, picture]},
        ]
        for _ in range(_ASKS):
            answer = self._answer(model, messages, schema)
            if answer["refusal"]:
                raise NoAnswer("refused")
            try:
                return schema.model_validate_json(answer["content"])
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"])) or "the answer"
                again = AGAIN.format(error=f"{where}: {first['msg']}")
                messages += [
                    {"role": "assistant", "content": answer["content"]},
                    {"role": "user", "content": again},
                ]
        raise NoAnswer("invalid_answer")

    def _answer(self, model: str, messages: list[dict[str, Any]], schema: type[BaseModel]) -> dict[str, Any]:
        """From the cache, or paid and put there."""
        form = {"name": schema.__name__, "schema": sent_schema(schema), "strict": True}
        question = {
            "model": model,
            "messages": messages,
            "response_format": {"type": "json_schema", "json_schema": form},
            "temperature": self._config.temperature,
            "max_tokens": self._config.max_tokens,
        }
        key = self._cache.key(question)
        with self._lock:
            asked = self._asked.setdefault(key, _Asked())
        with asked.lock:  # who has the same question meanwhile waits for the answer
            if (known := self._cache.get(key)) is not None:
                paid = known["usage"]
                self._count(Usage(0, 0, 0, 1, paid["prompt_tokens"], paid["completion_tokens"]))
                return known
            with self._under_way:
                self._wait()
                answer = self._paid(question)
            self._count(Usage(1, **answer["usage"]))
            return self._cache.put(key, answer)

    def _paid(self, question: dict[str, Any]) -> dict[str, Any]:
        """The reply as it is kept; that a filter rejects the question is one too, and asks no second time."""
        try:
            reply = self._request(question)
        except BadRequestError as error:
            detail = " ".join(str(error.message).split())[:200]
            return {"content": "", "refusal": detail, "usage": {"prompt_tokens": 0, "completion_tokens": 0}}
        first = reply.choices[0] if reply.choices else None
        message, used = (first.message if first else None), reply.usage
        refusal = (message.refusal if message else None) or ""
        if first and first.finish_reason == "content_filter":
            refusal = refusal or "the answer was cut off by the endpoint's content filter"
        return {
            "content": (message.content if message else None) or "",
            "refusal": refusal,
            "usage": {
                "prompt_tokens": used.prompt_tokens if used else 0,
                "completion_tokens": used.completion_tokens if used else 0,
            },
        }

    def _request(self, question: dict[str, Any]) -> Any:
        """The endpoint's reply.

        Raises:
            BadRequestError: a content filter rejects this question; others may still be asked.
            UserError: the endpoint cannot be used, also after the retries.
        """
        where = self._config.base_url or "OpenAI"
        kept = f"run the same command again to go on, paid answers are kept in {self._cache.place}"
        try:
            return self._client.chat.completions.create(**question)
        except APIStatusError as error:
            if isinstance(error, BadRequestError) and _is_filtered(error):
                raise
            detail = " ".join(str(error.message).split())
            detail = (detail.replace(self._key, "***") if self._key else detail)[:200]
            status = error.status_code
            if status in (401, 403):
                hint = f"check the key in {self._config.key_env}"
            elif status in (400, 404, 422):
                hint = f"check endpoint.model ({question['model']}) and endpoint.base_url"
            else:
                hint = f"after {self._config.retries} retries; {kept}"
            raise UserError(f"endpoint {where} answered {status}: {detail}; {hint}") from error
        except APIConnectionError as error:  # timeouts too
            raise UserError(
                f"endpoint {where} cannot be reached ({error}) after {self._config.retries} retries; {kept}"
            ) from error

    def _wait(self) -> None:
        """Until this request's turn, so that no minute sees more than allowed."""
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(self._next, now)
            self._next = turn + self._gap
        time.sleep(turn - now)

    def _count(self, more: Usage) -> None:
        with self._lock:
            self.usage = self.usage.plus(asdict(more))


def _is_filtered(error: BadRequestError) -> bool:
    """Whether a 400 means what this one question shows or says, not how all of them are put."""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("innererror")
    codes = {error.code, body.get("type"), inner.get("code") if isinstance(inner, dict) else None}
    return bool(codes & _FILTERED)
