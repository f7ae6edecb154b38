"""The tokenizer of a released checkpoint: as it lies in its folder, nothing added."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as _Tokenizer
from transformers import AutoTokenizer

from unigeoseg.errors import UserError
from unigeoseg.samples.tokens import END, FILE, PAD, RESERVED, SEG, Tokenizer, text_as_data

_CONFIG = "tokenizer_config.json"


class ReleasedTokenizer(Tokenizer):
    """Padding is the folder's own (it may be the end token); ``seg_id`` is the first id of "[SEG]".

    Where ``[SEG]`` is no added token, the released code closes an instruction with the id of "[".
    """

    def __init__(self, inner: _Tokenizer, config: dict[str, Any]) -> None:
        self._inner, self._config = inner, config
        self.end_id = self._id(_text(config.get("eos_token")) or END)
        pad = _text(config.get("pad_token")) or (PAD if inner.token_to_id(PAD) is not None else None)
        self.pad_id = self._id(pad) if pad else self.end_id
        inner.encode_special_tokens = False
        self.seg_id = int(inner.encode(SEG, add_special_tokens=False).ids[0])
        named = {pad, _text(config.get("eos_token"))} - {None}
        self._plain = text_as_data(inner, {*RESERVED, *map(str, named)})

    def _id(self, token: str) -> int:
        found = self._inner.token_to_id(token)
        if found is None:
            raise UserError(f"the tokenizer has no token {token}: take the folder of the released checkpoint")
        return int(found)

    def encode(self, text: str) -> list[int]:
        """The ids of ``text`` as plain data, nothing added."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def save(self, folder: str | Path) -> None:
        """Writes ``tokenizer.json`` and ``tokenizer_config.json``, which names the padding."""
        super().save(folder)
        (Path(folder) / _CONFIG).write_text(json.dumps(self._config, indent=2) + "\n")


def load_released_tokenizer(folder: str | Path) -> ReleasedTokenizer:
    """Loads a checkpoint's tokenizer, from ``tokenizer.json`` or Hugging Face's slow form.

    Raises:
        UserError: there is none, or it is damaged.
    """
    folder = Path(folder)
    try:
        path = folder / _CONFIG
        config = json.loads(path.read_text()) if path.is_file() else {}
        if (folder / FILE).is_file():
            inner = _Tokenizer.from_file(str(folder / FILE))
        else:
            inner = AutoTokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
    except Exception as error:  # the libraries raise bare Exception, OSError, ValueError and others
        raise UserError(f"{folder} holds no readable tokenizer ({error}); copy it again") from error
    return ReleasedTokenizer(inner, config)


def _text(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return None if content is None else str(content)
