"""What the endpoint may answer, as the JSON schema that it is asked for and checked against."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Score = Literal[1, 2, 3, 4, 5]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=600)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RegionVerdict(_Answer):
    """A judge's scores of an outlined region, before anything is written."""

    soundness: Score
    distinctness: Score
    unambiguity: Score


class Phrase(_Answer):
    """A referring phrase."""

    phrase: Text


class Cues(_Answer):
    """First stage of a context question: what sets the target apart from its like."""

    cues: Annotated[list[Text], Field(min_length=1, max_length=5)]


class QuestionAndReason(_Answer):
    """A reasoning question with a short explanation."""

    question: Text
    explanation: Text


class SampleVerdict(_Answer):
    """A judge's scores of image, outline and instruction together."""

    correctness: Score
    uniqueness: Score
    clarity: Score


#: Limits that OpenAI's strict mode refuses in a schema; answers are checked against them here all the same.
_LOCAL = {"minLength", "maxLength", "minItems", "maxItems"}


def sent_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema that is sent (platform.openai.com, structured outputs, supported schemas)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in _LOCAL}
        return [plain(v) for v in value] if isinstance(value, list) else value

    sent: dict[str, Any] = plain(schema.model_json_schema())
    return sent
