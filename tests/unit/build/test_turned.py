"""Texts for the other views of a tile: read by somebody else, they fit the target on that view alone."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.build.build import build_store
from pipelines.build.instruct.candidates import CandidateWriter
from pipelines.build.instruct.meaning import AtEdge, InZone, Meaning, Ranked, Sized
from pipelines.build.instruct.reasoning import Question, ask
from pipelines.build.instruct.referring import refer
from pipelines.build.instruct.relations import Beside, SideOf
from pipelines.build.instruct.roles import names_category
from pipelines.build.instruct.turned import TurnedTile, turned_facts, turned_meaning
from pipelines.config.building import BuildConfig
from pipelines.config.data import AugmentConfig
from pipelines.curate.lint import lint_store
from pipelines.labels.taxonomy import category_id, taxonomy
from pipelines.store.index import StoreIndex
from pipelines.store.reader import StoreReader
from pipelines.stream.augment import Augment
from tests.unit.build.plain_words import fits
from tests.unit.build.texts import faults, tile
from unigeoseg.samples.view import OTHER_TURNS, View

KINDS = tuple(category_id(n) for n in ("Building", "Pond", "Ship", "Road"))


def seen(array, flip, turns):
    return np.rot90(array[:, ::-1] if flip else array, turns)


def others(facts, target):
    """Places of the target's category, and the noun of each region."""
    nouns = [facts.noun(int(c)) for c in facts.categories]
    return [i for i, noun in enumerate(nouns) if noun == nouns[target]], nouns


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**32 - 1))
def test_referring_texts_fit_the_target_on_every_view(seed):
    facts, rng = tile(seed, KINDS)
    writer, turned = CandidateWriter(facts), TurnedTile(facts, "t", 0)
    for target in range(len(facts.regions)):
        found = refer(writer, facts, target, rng)
        if found is None:
            continue
        for turn, text in zip(OTHER_TURNS, turned.texts("referring", target, found[1]), strict=True):
            if text is None:
                continue
            there, words = turned_facts(facts, *turn), text["instruction"]
            members, nouns = others(there, target)
            assert fits(words, nouns[target], members, there.regions, nouns, 96, 96) == {target}, words
            assert not faults(words) and text["answer"] == ""


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**32 - 1))
def test_questions_and_answers_fit_the_target_on_every_view(seed):
    facts, rng = tile(seed, KINDS)
    writer, turned = CandidateWriter(facts), TurnedTile(facts, "t", 0)
    for target in range(len(facts.regions)):
        question = ask(writer, facts, target, rng)
        if not isinstance(question, Question):
            continue
        name = taxonomy()[int(facts.categories[target])].name
        for turn, text in zip(OTHER_TURNS, turned.texts("reasoning", target, question.meaning), strict=True):
            if text is None:
                continue
            there = turned_facts(facts, *turn)
            members, nouns = others(there, target)
            assert not names_category(text["instruction"], name)
            if question.subtask == "context":
                told = text["answer"].partition(", because")[0]
                assert fits(told, nouns[target], members, there.regions, nouns, 96, 96) == {target}, told
            assert not faults(text["instruction"]) and not faults(text["answer"])


@pytest.mark.parametrize("turn", OTHER_TURNS)
def test_regions_are_turned_as_pixels_are(turn):
    facts, _ = tile(7, KINDS)
    there = turned_facts(facts, *turn)
    assert (there.number_map == seen(facts.number_map, *turn)).all()
    view = View(*turn, (0, 96, 0, 96))
    expected = [view.point(x, y, 96, 96) for x, y in facts.centres]
    np.testing.assert_allclose(there.centres, expected, atol=1e-12)


def test_meanings_against_a_table_of_its_own():
    """Of the flip, and of one quarter turn against the clock: the left side goes to the bottom."""
    before = [
        (InZone("top", "left"), InZone("top", "right"), InZone("bottom", "left")),
        (InZone("top", None), InZone("top", None), InZone(None, "left")),
        (InZone("middle", "right"), InZone("middle", "left"), InZone("top", "middle")),
        (InZone("middle", "middle"), InZone("middle", "middle"), InZone("middle", "middle")),
        (Ranked("right", 2), Ranked("left", 2), Ranked("top", 2)),
        (AtEdge("bottom"), AtEdge("bottom"), AtEdge("right")),
        (SideOf("left", 3), SideOf("right", 3), SideOf("bottom", 3)),
        (Sized("largest"), Sized("largest"), Sized("largest")),
        (Beside(4), Beside(4), Beside(4)),
    ]
    for one, flipped, quarter in before:
        meaning = Meaning(1, (one,))
        assert turned_meaning(meaning, True, 0).predicates == (flipped,)
        assert turned_meaning(meaning, False, 1).predicates == (quarter,)
        assert turned_meaning(meaning, False, 4) == meaning
        back = turned_meaning(turned_meaning(meaning, True, 1), True, 1)
        assert back == meaning


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store with the other views, and the same without."""
    folder = tmp_path_factory.mktemp("views")
    source = {"scenes": 12, "size": 128}
    made = {}
    for name in ("with", "without"):
        values = {
            "tile": {"size": 128, "stride": 128},
            "instruct": {"views": name == "with"},
            "split": {"val": 0.0},
            "workers": 0,
            "source": source,
        }
        made[name] = str(folder / name)
        build_store("synthetic", None, made[name], BuildConfig.model_validate(values), False, preview=False)
    return made


def samples(store):
    index = StoreIndex.open(store)
    groups = StoreReader(index).read(range(len(index))).groups
    return groups, {sample.sample_id: sample for group in groups for sample in group.samples}


def test_a_store_tells_the_views_of_texts_and_of_nothing_else(stores):
    _, told = samples(stores["with"])
    _, plain = samples(stores["without"])
    assert told.keys() == plain.keys()
    for name, sample in told.items():
        other = plain[name]
        assert (sample.instruction, sample.answer, sample.box) == (other.instruction, other.answer, other.box)
        assert not other.views and bool(sample.views) is (sample.task != "interactive")
    texts = [view for sample in told.values() for view in sample.views]
    assert sum(view is not None for view in texts) > 0.95 * len(texts)
    card = json.loads(Path(stores["with"], "dataset.json").read_text(encoding="utf-8"))
    stages = {row["name"]: row for row in card["stages"]}
    noted = sum(
        stages[task].get("noted", {}).get("views_without_text", 0) for task in ("referring", "reasoning")
    )
    assert noted >= sum(view is None for view in texts)


def test_the_check_of_a_store_reads_them_too(stores, tmp_path):
    assert lint_store(stores["with"], progress=False)["errors"] == []
    broken = shutil.copytree(stores["with"], tmp_path / "broken")
    shard = next((broken / "shards").glob("train-*.tar"))
    content = shard.read_bytes()
    begin = b'"task":"referring","views":[{"answer":"","instruction":"'
    at = content.index(begin) + len(begin)
    end = content.index(b'"', at)
    shard.write_bytes(content[:at] + b"x" * (end - at) + content[end:])
    reasons = [error["reason"] for error in lint_store(str(broken), progress=False)["errors"]]
    assert sorted(reason.split(":")[0] for reason in reasons) == ["checksum", "phrase"]


def test_training_turns_such_pictures_with_their_words(stores):
    groups, _ = samples(stores["with"])
    augment, changed = Augment(AugmentConfig(flips=True, turns=True), 0), set()
    for group, position in itertools.product(groups[:4], range(20)):
        mine = type(group)(group.image, tuple(s for s in group.samples if s.task == "referring"))
        if not mine.samples:
            continue
        found = augment(mine, position)
        turns = [t for t in [(False, 0), *OTHER_TURNS] if (seen(mine.image, *t) == found.image).all()]
        assert len(turns) == 1
        changed.add(turns[0])
        for before, after in zip(mine.samples, found.samples, strict=True):
            assert (seen(before.mask, *turns[0]) == after.mask).all()
            if turns[0] != (False, 0):
                assert after.instruction == before.views[OTHER_TURNS.index(turns[0])][0]
            else:
                assert after.instruction == before.instruction
    assert len(changed) == 8
    plain, _ = samples(stores["without"])
    for group in plain[:4]:
        mine = type(group)(group.image, tuple(s for s in group.samples if s.task == "referring"))
        assert not mine.samples or all((augment(mine, p).image == mine.image).all() for p in range(5))


def test_an_endpoint_cannot_tell(tmp_path):
    with pytest.raises(ValueError, match=r"instruct.views=true needs meanings that are known"):
        BuildConfig.model_validate({"instruct": {"views": True}, "endpoint": {"model": "m"}})
