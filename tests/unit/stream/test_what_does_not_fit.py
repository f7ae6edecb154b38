"""Settings that do not fit a whole store are named; the store is not blamed."""

import pytest

from pipelines.config import Config
from pipelines.store.index import StoreIndex
from pipelines.store.reader import ReadStats
from pipelines.stream.assemble import Assembler
from pipelines.stream.layout import Micro
from pipelines.stream.quarantine import BadSampleEvent, Quarantine, what_to_do
from pipelines.stream.tokenizer import prepare_tokenizer
from tests.tiny_store import write_store
from tests.train_runs import tiny_values
from unigeoseg.errors import UserError


def test_an_image_that_leaves_no_room_for_text_is_refused_with_the_numbers():
    values = tiny_values(**{"model.image_size": 512})
    with pytest.raises(ValueError, match=r"=512 makes 256 image tokens.*max_length=200.*448 or more"):
        Config.model_validate(values)
    longer = {"tokenizer.max_length": 448, "model.language.max_positions": 448}
    Config.model_validate(tiny_values(**{"model.image_size": 512, **longer}))


def test_text_that_does_not_fit_is_no_damage_of_the_store(tmp_path):
    store = str(write_store(tmp_path / "store", images=12))
    config = Config.model_validate(tiny_values(**{"tokenizer.max_length": 20}))
    prepare_tokenizer(config, StoreIndex.open(store), tmp_path / "tokenizer")
    with pytest.raises(UserError) as caught:
        next(Assembler(config, store, str(tmp_path / "tokenizer")).fill([Micro(0, 0, 0, 2)], ReadStats()))
    said = str(caught.value)
    assert "The settings do not fit the store, which may be whole" in said and "tokenizer.max_length" in said
    assert "damaged" not in said and "image tokens and" in said


def test_each_reason_has_its_own_way_out():
    def said(*reasons):
        quarantine = Quarantine(2000, 0.001)
        quarantine.remember(BadSampleEvent(f"s{n}", r, "", n, "t") for n, r in enumerate(reasons))
        with pytest.raises(UserError) as caught:
            quarantine.judge(2000)
        return str(caught.value)

    assert "Repair or rebuild the store" in said(*["mask_size"] * 9)
    assert "lint" not in said(*["too_long"] * 9)
    both = said(*["too_long", "mask_size"] * 5)
    assert "tokenizer.max_length" in both and "data lint" in both
    assert what_to_do({"mask_size"}, "s3://Bucket/S").startswith("Repair or rebuild s3://Bucket/S")
