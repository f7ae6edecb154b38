"""Embedding rows that follow their words from one tokenizer to another.

A token's id says nothing by itself: two tokenizers of one size, each trained on its own texts, give nearly
every id to another word.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.tokens import Tokenizer


@dataclass(frozen=True)
class WordMap:
    """Where each row of a new vocabulary comes from.

    Attributes:
        source: int64 ``[rows]``, the row of the same token in the old vocabulary; -1: a new token.
        dropped: tokens of the old vocabulary that the new one lacks.
    """

    source: Tensor
    dropped: int

    @property
    def kept(self) -> int:
        """Rows that are taken over."""
        return int((self.source >= 0).sum())

    @property
    def fresh(self) -> int:
        """Rows that start anew."""
        return len(self.source) - self.kept

    def summary(self) -> str:
        """One line for people."""
        return (
            f"words by their text: {self.kept} tokens kept their rows, {self.fresh} are new and start fresh, "
            f"{self.dropped} of the export's are not used any more"
        )


def map_words(old: Tokenizer, new: Tokenizer, rows: int) -> WordMap:
    """The rows of ``new``'s tokens in ``old``'s vocabulary, matched by the tokens' text.

    Args:
        old: tokenizer that the rows were trained with.
        new: tokenizer of the run.
        rows: of the new embedding, at least ``new.vocab_size``; those beyond it start fresh.
    """
    before, now = old.vocabulary(), new.vocabulary()
    source = torch.full((rows,), -1, dtype=torch.int64)
    for text, place in now.items():
        if text in before:
            source[place] = before[text]
    return WordMap(source, sum(text not in now for text in before))


def word_parameters(model: UniGeoSeg) -> dict[str, Tensor]:
    """The parameters with a row for each token, by name: embedding, output layer, its bias."""
    layers = (model.language.model.get_input_embeddings(), model.language.model.get_output_embeddings())
    owned = {id(p) for layer in layers if isinstance(layer, nn.Module) for p in layer.parameters()}
    return {name: p for name, p in model.named_parameters(remove_duplicate=False) if id(p) in owned}


def moved_rows(old: Tensor, fresh: Tensor, words: WordMap) -> Tensor:
    """A tensor of ``fresh``'s shape: rows of ``old`` where the word was known, its own elsewhere."""
    moved = fresh.detach().clone()
    known = (words.source >= 0) & (words.source < len(old))
    moved[known] = old[words.source[known]].to(moved.dtype)
    return moved


def same_words(old: Tokenizer, new: Tokenizer) -> bool:
    """Whether both give every token the same id."""
    return old.vocabulary() == new.vocabulary()
