"""An export's words in a run with another tokenizer: rows follow the text, new tokens start fresh."""

import pytest
import torch

from tests.unit.model.conftest import tiny_config
from unigeoseg.export import save_export
from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.tokens import train_tokenizer
from unigeoseg.weights.export_file import load_export_weights
from unigeoseg.weights.words import map_words, word_parameters

SCENES = ["the large building near the road", "the small pond beside a building", "a ship at the quay"] * 3
TILES = ["the bridge over the water", "an airplane near the building", "a tennis court beside a road"] * 3


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    return train_tokenizer(SCENES, 330, folder / "a"), train_tokenizer(TILES, 340, folder / "b")


@pytest.fixture
def export(tokenizers, tmp_path):
    torch.manual_seed(1)
    model = UniGeoSeg(tiny_config(), tokenizers[0].vocab_size)
    save_export(tmp_path / "export", model, tokenizers[0])
    return model, tmp_path / "export"


def test_rows_follow_the_tokens_text(tokenizers, export):
    old, new = tokenizers
    before, folder = export
    torch.manual_seed(2)
    after = UniGeoSeg(tiny_config(), new.vocab_size)
    fresh = {name: p.detach().clone() for name, p in word_parameters(after).items()}
    report = load_export_weights(after, folder, tokenizer=new)
    known, own = old.vocabulary(), new.vocabulary()
    assert 0 < len(own.keys() & known.keys()) < len(own)
    assert {"embed_tokens.weight", "lm_head.weight"} <= {".".join(n.split(".")[-2:]) for n in fresh}
    source = word_parameters(before)
    for name, parameter in word_parameters(after).items():
        for text, row in own.items():
            want = source[name][known[text]] if text in known else fresh[name][row]
            assert torch.equal(parameter[row], want), (name, text)
    shared = len(own.keys() & known.keys())
    assert f"{shared} tokens kept their rows, {len(own) - shared} are new" in report.summary()
    rest = after.state_dict()
    for name, value in before.state_dict().items():
        if name not in fresh:
            assert torch.equal(rest[name], value), name


def test_the_same_words_are_taken_as_they_are(tokenizers, export):
    before, folder = export
    after = UniGeoSeg(tiny_config(), tokenizers[0].vocab_size)
    report = load_export_weights(after, folder, tokenizer=tokenizers[0])
    assert "words: the same" in report.summary()
    assert all(torch.equal(v, after.state_dict()[k]) for k, v in before.state_dict().items())


def test_without_its_tokenizer_only_the_words_start_fresh(tokenizers, export):
    before, folder = export
    (folder / "tokenizer.json").unlink()
    after = UniGeoSeg(tiny_config(), tokenizers[0].vocab_size)
    fresh = {name: p.detach().clone() for name, p in word_parameters(after).items()}
    report = load_export_weights(after, folder, tokenizer=tokenizers[0])
    assert "tokenizer.json is missing there" in report.summary()
    assert all(torch.equal(p, fresh[name]) for name, p in word_parameters(after).items())
    kept = [name for name in before.state_dict() if name not in fresh]
    assert all(torch.equal(before.state_dict()[name], after.state_dict()[name]) for name in kept)


def test_a_longer_table_than_the_vocabulary_keeps_its_spare_rows(tokenizers):
    old, new = tokenizers
    words = map_words(old, new, new.vocab_size + 5)
    assert words.source[new.vocab_size :].tolist() == [-1] * 5
    assert words.kept + words.fresh == new.vocab_size + 5
    assert words.dropped == len(old.vocabulary().keys() - new.vocabulary().keys())
