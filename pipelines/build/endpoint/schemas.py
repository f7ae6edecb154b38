"""What the endpoint may answer, as the JSON schema that it is asked for and checked against."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Score = Annotated[int, Field(ge=1, le=5)]
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
