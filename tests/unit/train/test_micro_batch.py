"""How many positions a worker holds at once where memory decides."""

from types import SimpleNamespace

import pytest
import torch

from pipelines.config import Config
from pipelines.models.sizes import measure_model
from pipelines.store.index import StoreIndex
from pipelines.stream.layout import Layout
from pipelines.train.engine.deepspeed_config import accumulation_steps
from pipelines.train.engine.memory import largest_micro_batch, needed, with_micro_batch
from pipelines.train.loop import micro_batch
from tests.tiny_store import write_store
from tests.train_runs import tiny_values

HERE, THERE = "here", "there"


@pytest.fixture(autouse=True, scope="module")
def measured_once():
    """Measuring a model takes longer than all else here, and all of these have the same."""
    known: dict = {}

    def once(config, instruction):
        key = str(config.model), instruction
        if key not in known:
            known[key] = measure_model(config, instruction)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(micro_batch, "measure_model", once)
        yield


def _config(**changes):
    values = {"train.global_batch": 12, "train.micro_batch": "auto", "scale.workers": 2}
    return Config.model_validate(tiny_values(**values | changes))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    store = tmp_path_factory.mktemp("micro") / "store"
    write_store(store)
    return StoreIndex.open(str(store), "train")


def _peaks(config, index, world):
    """Bytes of a worker by its micro-batch, with the longest instruction of the store."""
    words = int(index.table["words"].to_numpy().max())
    sizes = measure_model(config, max(32, 2 * words))[0]
    own = config.train.global_batch // world
    sizes_of = [n for n in range(1, own + 1) if own % n == 0]
    peaks = {n: needed(with_micro_batch(config, n, world), sizes, world, world).device for n in sizes_of}
    assert list(peaks.values()) == sorted(set(peaks.values()))  # each needs more than the one before
    for n in sizes_of:
        assert largest_micro_batch(config, sizes, world, world, peaks[n]) == n
    assert largest_micro_batch(config, sizes, world, world, peaks[1] - 1) is None
    return peaks


def test_the_largest_part_that_fits_on_the_fullest_machine_is_taken(index, monkeypatch):
    config = _config()
    peaks = _peaks(config, index, 2)
    assert list(peaks) == [1, 2, 3, 6]
    for size, room in peaks.items():
        own, other = 2 * (room + 1) / micro_batch._OF_HOST, 6 * room
        for reports, free in (
            ([(HERE, own), (HERE, own)], "both on one machine, which they share"),
            ([(HERE, own / 2), (THERE, other)], "one has a full machine"),
            ([(HERE, other), (THERE, own / 2)], "the other has"),
        ):
            monkeypatch.setattr(micro_batch, "gathered", lambda value, found=reports: found)
            chosen = micro_batch.choose_micro_batch(config, index)
            assert chosen.config.train.micro_batch == size, free
            assert f"auto: {size} of a worker's 6 positions" in chosen.text


def test_the_step_stays_the_same_whatever_is_taken(index, monkeypatch):
    monkeypatch.setattr(micro_batch, "gathered", lambda value: [(HERE, 1)])
    chosen = micro_batch.choose_micro_batch(_config(**{"scale.workers": 1}), index)
    assert chosen.config.train.micro_batch == 1 and "so it may not fit" in chosen.text
    assert accumulation_steps(chosen.config, 1) == 12 and chosen.config.train.global_batch == 12
    layout = Layout.of(chosen.config, 0, 1, 0, 2)
    assert (layout.micro_batch, layout.per_step, layout.micros) == (1, 12, 24)
    assert layout.block(0)[0].position == 0


@pytest.mark.parametrize("free", [1, 10**15])
def test_a_smaller_group_of_an_elastic_run_chooses_for_itself(index, monkeypatch, free):
    """Its number need not divide what a worker of the whole group would have."""
    monkeypatch.setattr(micro_batch, "gathered", lambda value: [(HERE, free)])
    config = _config(**{"scale.workers": 4, "scale.min_workers": 1})
    chosen = micro_batch.choose_micro_batch(config, index).config
    size = 12 if free > 1 else 1
    assert (chosen.train.micro_batch, chosen.scale.workers) == (size, 1)
    assert Config.model_validate(chosen.plain()) == chosen and accumulation_steps(chosen, 1) == 12 // size


@pytest.mark.parametrize(("container", "left"), [(None, 100), ((30, 90), 60), ((0, 10**6), 100)])
def test_a_container_has_what_it_is_allowed(monkeypatch, container, left):
    monkeypatch.setattr(micro_batch, "container_memory", lambda: container)
    monkeypatch.setattr(micro_batch, "local_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(micro_batch.psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
    assert micro_batch._free() == left


@pytest.mark.parametrize("given", [None, 3])
def test_a_number_that_is_given_stays(index, given):
    config = _config(**{"train.micro_batch": given})
    assert micro_batch.choose_micro_batch(config, index) == micro_batch.Chosen(config)


def test_before_it_is_chosen_all_positions_count():
    config = _config()
    assert config.micro_batch == 6 and accumulation_steps(config, 2) == 1
    assert Layout.of(config, 1, 2, 0, 1).micro_batch == 6
    elastic = _config(**{"scale.workers": 4, "scale.min_workers": 1})
    assert elastic.world_sizes() == [1, 2, 3, 4]


@pytest.mark.parametrize("wrong", [0, -1, "all", True, 1.5])
def test_what_is_neither_a_number_nor_auto(wrong):
    with pytest.raises(ValueError, match="give a number from 1 on, auto, or null"):
        _config(**{"train.micro_batch": wrong})
