"""Tokenizers: one trained on a store's own text, or a Hugging Face folder's, with the special tokens added.

Text is always encoded as data: a user's ``[SEG]`` becomes ordinary pieces, never the special token.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as _Tokenizer

from unigeoseg.errors import UserError

PAD, SEG, END = "[PAD]", "[SEG]", "<|endoftext|>"
#: Strings that mean something to the prompt template; stores must not contain them.
RESERVED: tuple[str, ...] = (PAD, SEG, END, "<image>", "<seg>", "<refer>", "<answer>")
FILE = "tokenizer.json"
_TEMPLATE_WEIGHT = 1000


class Tokenizer:
    """A ``tokenizers`` tokenizer with the three ids that the model needs.

    Attributes:
        pad_id: fills the right of short sequences.
        seg_id: closes every instruction; the query reads it.
        end_id: closes the reply.
    """

    def __init__(self, inner: _Tokenizer) -> None:
        inner = text_as_data(inner, RESERVED)
        missing = [t for t in (PAD, SEG, END) if inner.token_to_id(t) is None]
        if missing:
            inner.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in missing])
        self._inner = inner
        self.pad_id, self.seg_id, self.end_id = (inner.get_vocab()[t] for t in (PAD, SEG, END))

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return int(self._inner.get_vocab_size(with_added_tokens=True))

    def vocabulary(self) -> dict[str, int]:
        """The id of each token by its text as the tokenizer spells it, special ones included."""
        return dict(self._inner.get_vocab(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """The ids of ``text`` as plain data, nothing added."""
        return list(self._inner.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        """The text of ``ids``, special tokens left out."""
        return str(self._inner.decode(ids, skip_special_tokens=True))

    def save(self, folder: str | Path) -> None:
        """Writes ``tokenizer.json`` into ``folder``, which is made if needed."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._inner.save(str(Path(folder) / FILE))


def text_as_data(inner: _Tokenizer, reserved: Iterable[str]) -> _Tokenizer:
    """A tokenizer in whose texts ``reserved`` words are ordinary pieces, special or not.

    A token that was added without being special (as training code adds ``[SEG]``) would be found in any text.
    """
    names, content = set(reserved), json.loads(inner.to_str())
    hidden = [
        token for token in content["added_tokens"] if token["content"] in names and not token["special"]
    ]
    if hidden:
        for token in hidden:
            token["special"] = True
        inner = _Tokenizer.from_str(json.dumps(content))
    inner.encode_special_tokens = True
    return inner


def load_tokenizer(folder: str | Path, mode: str = "paper") -> Tokenizer:
    """Loads ``tokenizer.json`` from ``folder`` (a Hugging Face model folder, or an export's).

    Args:
        folder: where it lies.
        mode: the model's mode; in ``released`` no token is added.

    Raises:
        UserError: the file is missing or is no tokenizer.
    """
    if mode == "released":
        from unigeoseg.samples.released_tokenizer import load_released_tokenizer  # it builds on this module

        return load_released_tokenizer(folder)
    path = Path(folder) / FILE
    if not path.is_file():
        raise UserError(f"no {FILE} in {folder}: give a folder that holds a Hugging Face fast tokenizer")
    try:
        return Tokenizer(_Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path} is not a readable tokenizer ({error}); copy it again") from error


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, folder: str | Path, template: Sequence[str] = ()
) -> Tokenizer:
    """Trains a byte-level BPE on ``texts`` and saves it in ``folder``.

    ``template`` holds the prompt's constant texts: they stand in every sequence, so they weigh as much as a
    text of every sample. Deterministic: the same texts in the same order give the same file.
    """
    inner = _Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, SEG, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    constant = chain.from_iterable(repeat(template, _TEMPLATE_WEIGHT))
    inner.train_from_iterator(chain(constant, texts), trainer)
    tokenizer = Tokenizer(inner)
    tokenizer.save(folder)
    return tokenizer
