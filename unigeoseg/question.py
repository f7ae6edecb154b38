"""What a person asks of a picture: a phrase, a question, a box or points."""

from collections.abc import Sequence
from dataclasses import dataclass

from unigeoseg.errors import UserError
from unigeoseg.samples.prompts import interactive_sentence
from unigeoseg.tasks import INTERACTIVE, REASONING, REFERRING


@dataclass(frozen=True)
class Question:
    """What to segment: a text, or a box, or one to three points (coordinates in [0, 1] of the image)."""

    task: str
    text: str
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] | None = None

    @classmethod
    def ask(
        cls,
        text: str | None = None,
        box: Sequence[float] | None = None,
        points: Sequence[Sequence[float]] = (),
        reasoning: bool = False,
        question: str | None = None,
    ) -> "Question":
        """From what a person gives; box and points become the same sentences as in training.

        Args:
            text: a phrase that names the target.
            box: x0, y0, x1, y1 in [0, 1]: x right, y down.
            points: one to three x, y in [0, 1].
            reasoning: whether ``text`` is a question that needs reasoning.
            question: the same as ``text`` with ``reasoning``.

        Raises:
            UserError: not exactly one kind is given, the text is empty, or the coordinates cannot be used.
        """
        if sum((text is not None, question is not None, box is not None, bool(points))) != 1:
            raise UserError(
                "give one of --text, --question, --box and --point (--point up to three times); in Python "
                "one of text=, question=, box= and points="
            )
        words = text if question is None else question
        if words is not None:
            if not words.strip():
                raise UserError(
                    f"--{'text' if question is None else 'question'} is empty: say what to segment"
                )
            return cls(REASONING if reasoning or question is not None else REFERRING, words)
        sentence = interactive_sentence(box, points or None)
        corners = None if box is None else (box[0], box[1], box[2], box[3])
        return cls(INTERACTIVE, sentence, corners, tuple((p[0], p[1]) for p in points) or None)
