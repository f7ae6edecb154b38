"""The prompt template, and the sentences of the interactive task.

The template is the released code's ``llava_phi`` conversation. Interactive sentences follow the two patterns
that the released reader parses: ``x0,y0=[a,b], x1,y1=[c,d]`` for a box and ``[a,b]`` for a point.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from unigeoseg.errors import UserError
from unigeoseg.samples.tokens import Tokenizer
from unigeoseg.tasks import INTERACTIVE, REASONING, REFERRING

#: The template's word for each task. (The released evaluation says "Reasoning" for all three.)
TASK_WORDS: dict[str, str] = {
    INTERACTIVE: "Interactive",
    REFERRING: "Referring",
    REASONING: "Reasoning",
}
REPLY = "Sure, It is the segmentation."
#: At most this many points in one instruction.
MAX_POINTS = 3
#: Decimals of a coordinate in a sentence.
DIGITS = 3

_BOX = re.compile(r"x0,y0=\[([\d.]+),([\d.]+)\], x1,y1=\[([\d.]+),([\d.]+)\]")
_POINT = re.compile(r"\[([\d.]+),([\d.]+)\]")


@dataclass(frozen=True)
class PromptTokens:
    """The ids of one prompt in five consecutive parts; image tokens stand between the first two.

    Attributes:
        before_image: system sentence and the words up to the image.
        after_image: the words from the image to the instruction.
        instruction: the user's text, closed by the [SEG] token.
        close: the end of the user's turn.
        reply: the supervised reply, answer and end token (empty at prediction time).
        reply_labels: the reply's labels where they are not the reply itself; -100 where no loss is taken.
        hidden: how many tokens at the end of the reply are hidden from attention.
    """

    before_image: list[int]
    after_image: list[int]
    instruction: list[int]
    close: list[int]
    reply: list[int]
    reply_labels: list[int] | None = None
    hidden: int = 0

    @property
    def labels(self) -> list[int]:
        """Labels of the reply."""
        return self.reply if self.reply_labels is None else self.reply_labels

    @property
    def length(self) -> int:
        """Number of ids, without the image tokens."""
        parts = (self.before_image, self.after_image, self.instruction, self.close, self.reply)
        return sum(map(len, parts))


class PromptEncoder:
    """Turns instructions into ids; the constant parts are encoded once."""

    def __init__(self, tokenizer: Tokenizer, system_prompt: str) -> None:
        self._tokenizer = tokenizer
        system = f"<<SYS>>\n{system_prompt}\n<</SYS>>\n\n" if system_prompt else ""
        self._before = tokenizer.encode(f"[INST] {system}This is an image")
        self._after = {task: tokenizer.encode(template_after_image(task)) for task in TASK_WORDS}
        self._close = tokenizer.encode(" [/INST]")
        self._plain_reply = self._reply("")

    def encode(self, task: str, instruction: str, answer: str | None) -> PromptTokens:
        """The ids of one sample; ``answer=None`` leaves the reply out (prediction).

        Raises:
            UserError: the instruction is empty.
        """
        text = instruction.strip()
        if not text:
            raise UserError("the instruction is empty: say what to segment")
        asked = [*self._tokenizer.encode(" " + text), self._tokenizer.seg_id]
        reply: list[int] = []
        if answer is not None:
            reply = self._reply(answer) if answer else self._plain_reply
        return PromptTokens(self._before, self._after[task], asked, self._close, reply)

    def _reply(self, answer: str) -> list[int]:
        return [*self._tokenizer.encode(f" {REPLY} {answer}".rstrip()), self._tokenizer.end_id]


def template_after_image(task: str) -> str:
    """The template's words between the image and the instruction."""
    word = TASK_WORDS[task]
    return f", Please doing {word} Segmentation according to the following instruction:\n"


def template_texts(system_prompt: str) -> list[str]:
    """Every constant text of the template, for training a tokenizer that knows it."""
    system = f"<<SYS>>\n{system_prompt}\n<</SYS>>\n\n" if system_prompt else ""
    heads = [f"[INST] {system}This is an image", " [/INST]", f" {REPLY}"]
    return heads + [template_after_image(task) for task in TASK_WORDS]


def format_box(box: Sequence[float], digits: int = DIGITS) -> str:
    """A box as the released reader's pattern."""
    x0, y0, x1, y1 = (f"{value:.{digits}f}" for value in box)
    return f"x0,y0=[{x0},{y0}], x1,y1=[{x1},{y1}]"


def format_points(points: Sequence[Sequence[float]], digits: int = DIGITS) -> str:
    """One to three points as the released reader's pattern."""
    return ", ".join(f"[{x:.{digits}f},{y:.{digits}f}]" for x, y in points)


def interactive_sentence(
    box: Sequence[float] | None = None, points: Sequence[Sequence[float]] | None = None
) -> str:
    """The fixed sentence of an interactive sample; coordinates in [0, 1] of the image.

    Raises:
        UserError: neither or both prompts, more than three points, or a coordinate outside [0, 1].
    """
    check_prompt(box, points)
    if box is not None:
        return f"Segment the object inside the box {format_box(box)}."
    assert points is not None
    return f"Segment the object marked by the point{'s' if len(points) > 1 else ''} {format_points(points)}."


def check_prompt(box: Sequence[float] | None, points: Sequence[Sequence[float]] | None) -> None:
    """Refuses what is not one box or one to three points inside the image.

    Raises:
        UserError: with the value and the remedy.
    """
    if (box is None) == (points is None):
        raise UserError("an interactive instruction takes either one box or one to three points")
    if points is not None and not 1 <= len(points) <= MAX_POINTS:
        raise UserError(f"{len(points)} points given: an instruction takes 1 to {MAX_POINTS}")
    numbers = list(box) if box is not None else [v for p in points or () for v in p]
    if box is not None and len(numbers) != 4:
        raise UserError(f"a box has four numbers x0,y0,x1,y1, got {len(numbers)}")
    for value in numbers:
        if not 0.0 <= value <= 1.0:  # also refuses NaN
            raise UserError(
                f"coordinate {value} is outside [0, 1]: divide x by the image width and y by its height"
            )
    if box is not None and (box[0] >= box[2] or box[1] >= box[3]):
        raise UserError(f"box {tuple(box)} is empty: x0 < x1 and y0 < y1 must hold")


def write_coordinates(
    text: str, box: Sequence[float] | None, points: Sequence[Sequence[float]] | None
) -> str:
    """``text`` with other coordinates where it has a box or points in the released reader's patterns.

    Args:
        text: an instruction; without coordinates it stays as it is.
        box: what to write in place of its box.
        points: what to write in place of its points, as many as it has.
    """
    if box is not None and _BOX.search(text):
        return _BOX.sub(lambda match: format_box(box, _digits(*match.groups())), text)
    rest = iter(points or ())

    def other(match: re.Match[str]) -> str:
        point = next(rest, None)
        return match[0] if point is None else format_points([point], _digits(*match.groups()))

    return _POINT.sub(other, text)


def without_coordinates(text: str) -> str:
    """``text`` without boxes and points in the released reader's patterns."""
    return _POINT.sub(" ", _BOX.sub(" ", text))


def count_coordinates(text: str) -> tuple[int, int]:
    """How many boxes, and how many points beside them, ``text`` has in the released reader's patterns."""
    return len(_BOX.findall(text)), len(_POINT.findall(_BOX.sub(" ", text)))


def _digits(*numbers: str) -> int:
    """Decimals that are written: as many as ``numbers`` have, and no fewer than the fixed sentences."""
    return max(DIGITS, *(len(number.partition(".")[2]) for number in numbers))


def parse_coordinates(
    text: str,
) -> tuple[tuple[float, float, float, float] | None, tuple[tuple[float, float], ...] | None]:
    """Reads a box, or one to three points, out of an instruction; ``(None, None)`` if there are none."""
    if match := _BOX.search(text):
        x0, y0, x1, y1 = (float(v) for v in match.groups())
        return (x0, y0, x1, y1), None
    points = tuple((float(x), float(y)) for x, y in _POINT.findall(text))
    return (None, points) if 1 <= len(points) <= MAX_POINTS else (None, None)
