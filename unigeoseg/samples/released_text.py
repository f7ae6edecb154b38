"""The released code's prompt and what its label masking leaves of the reply."""

from unigeoseg.errors import UserError
from unigeoseg.samples.prompts import PromptEncoder, PromptTokens, template_after_image
from unigeoseg.samples.tokens import Tokenizer
from unigeoseg.tasks import REASONING

_IGNORE = -100
_TURN = " [/INST] "


class ReleasedPromptEncoder(PromptEncoder):
    """``[INST] ...This is an image <image>, ...:\\n<refer> [/INST] Sure, It is <seg>. \\n<answer>. <end>``.

    Every piece between placeholders is encoded by itself; ``<seg>`` leaves nothing behind. The answer
    (closed, as the instruction, by the [SEG] id) is always supervised. The words around it are supervised
    from one token before the length of the text up to ``[/INST] `` on, but not at all where padding is the
    end token: the released length check then fails, and the end token is hidden from attention.
    """

    def __init__(self, tokenizer: Tokenizer, system_prompt: str) -> None:
        self._tokenizer = tokenizer
        encode = tokenizer.encode
        system = f"<<SYS>>\n{system_prompt}\n<</SYS>>\n\n" if system_prompt else ""
        self._before = encode(f"[INST] {system}This is an image ")
        self._after_image = encode(template_after_image(REASONING))
        self._turn = encode(f"{_TURN}Sure, It is ") + encode(". \n")
        self._first_label = len(encode(_TURN)) - 1
        self._last = [*encode(". "), tokenizer.end_id]

    def encode(self, task: str, instruction: str, answer: str | None) -> PromptTokens:
        """The ids of one sample; ``answer=None`` leaves the reply out (prediction).

        Raises:
            UserError: the instruction is empty.
        """
        text = instruction.strip()
        if not text:
            raise UserError("the instruction is empty: say what to segment")
        tokenizer = self._tokenizer
        question = [*tokenizer.encode(" " + text), tokenizer.seg_id]
        if answer is None:
            return PromptTokens(self._before, self._after_image, question, [], [])
        said = [*tokenizer.encode(answer), tokenizer.seg_id]
        reply = [*self._turn, *said, *self._last]
        unsupervised = tokenizer.pad_id == tokenizer.end_id
        first = len(self._turn) if unsupervised else self._first_label
        labels = [_IGNORE] * first + reply[first:]
        if unsupervised:
            labels[len(labels) - len(self._last) :] = [_IGNORE] * len(self._last)
        hidden = int(unsupervised)
        return PromptTokens(self._before, self._after_image, question, [], reply, labels, hidden)
