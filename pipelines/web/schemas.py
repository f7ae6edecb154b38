"""What callers send and get, as the OpenAPI description tells it. Coordinates are pixels of the picture."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

#: Longest text of an instruction; the model refuses what is too long for it long before.
_TEXT = 4000

ImageId = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[a-z]+-[A-Za-z0-9_-]+$")]
Four = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


class SegmentRequest(BaseModel):
    """One instruction on one picture: exactly one of text, question, box and points."""

    model_config = ConfigDict(extra="forbid")
    image: ImageId
    text: str | None = Field(None, max_length=_TEXT, description='a phrase: "the northern of the two ships"')
    question: str | None = Field(None, max_length=_TEXT, description="a question that needs reasoning")
    box: Four | None = Field(None, description="x0, y0, x1, y1 in pixels: x right, y down")
    points: list[tuple[FiniteFloat, FiniteFloat]] = Field([], max_length=3, description="x, y in pixels")
    threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="probability above which a pixel is in the mask; the model's own if left out",
    )
    look: Literal["auto", "whole", "around"] | Four = Field(
        "auto",
        description="what the model is given: the whole picture, the window around a box or points, or a "
        "window x0, y0, x1, y1 in pixels; auto: the whole of a picture of up to 16,777,216 pixels, else "
        "around",
    )


class Mask(BaseModel):
    """COCO's compressed run lengths."""

    size: tuple[int, int] = Field(description="height and width")
    counts: str


class SegmentAnswer(BaseModel):
    """A mask of the window that was looked at."""

    answer: str = Field(description="id, for /v1/answers")
    image: str
    mask: Mask
    window: tuple[int, int, int, int] = Field(description="x0, y0, x1, y1 in pixels; the mask covers it")
    score: float = Field(description="mean probability inside the mask; 0 where it is empty")
    none: bool = Field(description="whether the mask is empty")
    presence: float | None = Field(description="score for whether it is there, where the export has a rule")
    share: float = Field(description="of the window")
    area_px: int = Field(description="pixels of the picture")
    area_m2: float | None = Field(description="along the ellipsoid, where the picture has a place")
    task: str
    instruction: str
    threshold: float
    model: str


class ImageAnswer(BaseModel):
    """A picture that is known."""

    image: str
    name: str
    width: int
    height: int
    crs: str | None
    levels: int = Field(description="halvings of the picture that have tiles, and itself")
    tile: int = Field(description="side of a tile in pixels")


class SampleRequest(BaseModel):
    """Which instruction is asked of a sample's picture."""

    model_config = ConfigDict(extra="forbid")
    instruction_of: int | None = Field(None, ge=0, description="row of another sample of the same picture")


Json = dict[str, Any]
