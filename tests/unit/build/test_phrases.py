from collections import Counter

import numpy as np
import pytest

from pipelines.build.instruct.candidates import CandidateWriter
from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.meaning import FALSE, TRUE, UNCLEAR, InZone, Meaning, Ranked, SideOf, Sized
from pipelines.build.instruct.reasoning import Question, ask, names_category, roles
from pipelines.build.instruct.referring import refer
from pipelines.build.regions import Region, split_instances
from pipelines.build.sources.synthetic.layouts import LAYOUTS
from pipelines.build.sources.table import shipped_tables
from pipelines.build.taxonomy import category_id, taxonomy
from tests.unit.build.plain_words import fits

BUILDING, POND, SHIP, ROAD = (category_id(n) for n in ("Building", "Pond", "Ship", "Road"))


def tile(seed, side=96):
    rng = np.random.default_rng(seed)
    labels, kinds, colours = np.zeros((side, side), np.int32), {}, {}
    for n in range(1, int(rng.integers(5, 12))):
        y, x, h, w = *rng.integers(0, side - 22, 2), *rng.integers(6, 22, 2)
        labels[y : y + h, x : x + w] = n
        kinds[n] = int(rng.choice([BUILDING, POND, SHIP, ROAD]))
        colours[n] = str(rng.choice(["red", "white", "blue"]))
    regions, _ = split_instances(labels, kinds, colours, 10)
    return TileFacts(regions, side, side), rng


@pytest.mark.parametrize("seed", range(120))
def test_phrases_fit_their_target_alone_when_read_by_somebody_else(seed):
    facts, rng = tile(seed)
    nouns = [facts.noun(int(c)) for c in facts.categories]
    writer = CandidateWriter(facts)
    for target in range(len(facts.regions)):
        found = refer(writer, facts, target, rng)
        if found is None:
            continue
        text, _ = found
        members = [i for i, n in enumerate(nouns) if n == nouns[target]]
        assert fits(text, nouns[target], members, facts.regions, nouns, 96, 96) == {target}, text


def test_phrases_are_varied():
    texts, kinds = set(), Counter()
    for seed in range(60):
        facts, rng = tile(seed)
        writer = CandidateWriter(facts)
        for target in range(len(facts.regions)):
            if found := refer(writer, facts, target, rng):
                texts.add(found[0].replace(facts.noun(found[1].category), "X"))
                kinds.update(type(p).__name__ for p in found[1].predicates)
    assert len(texts) > 120
    assert set(kinds) == {"InZone", "Ranked", "Sized", "SideOf", "Beside", "Nearest", "Coloured"}


def place(*boxes):
    return TileFacts(
        [Region(c, y0, x0, y1, x1, np.ones((y1 - y0, x1 - x0), bool)) for c, y0, x0, y1, x1 in boxes],
        100,
        100,
    )


def test_what_is_unclear_is_neither_true_nor_false():
    facts = place((BUILDING, 10, 10, 20, 20), (BUILDING, 10, 40, 20, 50), (BUILDING, 10, 80, 20, 90))
    members = facts.members(BUILDING)
    assert InZone("top", "left").truth(facts, members).tolist() == [TRUE, UNCLEAR, FALSE]
    assert not Meaning(BUILDING, (InZone("top", "left"),)).picks(facts, 0)
    assert Meaning(BUILDING, (InZone(None, "right"),)).picks(facts, 2)
    assert Ranked("left").truth(facts, members).tolist() == [TRUE, FALSE, FALSE]
    assert Sized("largest").truth(facts, members).tolist() == [UNCLEAR] * 3


def test_no_rank_without_a_clear_lead():
    facts = place((BUILDING, 10, 10, 20, 20), (BUILDING, 50, 13, 60, 23), (BUILDING, 80, 60, 90, 70))
    assert Ranked("left").truth(facts, facts.members(BUILDING)).tolist() == [UNCLEAR, UNCLEAR, FALSE]


def test_a_ship_on_the_water_is_not_left_of_it():
    facts = place((SHIP, 40, 30, 50, 40), (POND, 20, 20, 80, 80))
    assert SideOf("left", POND).truth(facts, facts.members(SHIP))[0] != TRUE
    assert all(
        type(p).__name__ not in ("SideOf", "Beside")
        for m in CandidateWriter(facts).unique(0)["relation"]
        for p in m.predicates
    )


@pytest.mark.parametrize("seed", range(60))
def test_questions_hide_the_category_and_fit_one_region(seed):
    facts, rng = tile(seed)
    writer = CandidateWriter(facts)
    nouns = [facts.noun(int(c)) for c in facts.categories]
    for target in range(len(facts.regions)):
        asked = ask(writer, facts, target, rng)
        if not isinstance(asked, Question):
            continue
        category = taxonomy()[int(facts.categories[target])]
        same = [i for i, n in enumerate(nouns) if n == nouns[target]]
        assert category.name.lower() not in asked.instruction.lower()
        assert category.noun not in asked.instruction.lower()
        assert asked.subtask == ("attribute" if len(same) == 1 else "context")
        assert len(same) <= 3 and asked.answer
        present = {taxonomy()[int(c)].name for c in facts.categories}
        assert not present & roles()[category.name].conflicts
        if (
            asked.subtask == "context"
        ):  # the answer repeats the cue with the noun: it must fit the target alone
            cue = asked.answer.split(", because")[0]
            assert fits(cue, nouns[target], same, facts.regions, nouns, 96, 96) == {target}, asked


def test_every_category_of_our_sources_has_a_role_that_does_not_name_it():
    names = {t.category for layout in LAYOUTS.values() for t in (*layout.must, *layout.may)} | {
        "Water",
        "Road",
    }
    names |= {taxonomy()[row.category].name for row in shipped_tables()["dubai"].classes if row.category}
    known = {c.name for c in taxonomy().values()}
    assert names <= set(roles()) <= known
    for name, role in roles().items():
        assert role.conflicts <= known, name
        assert len(role.roles) >= 3 and len(role.needs) >= 2
        for text in (*role.roles, *role.needs, role.head, role.heads):
            assert not names_category(text, name, role.avoid), (name, text)


def test_taxonomy_is_whole():
    assert sorted(taxonomy()) == list(range(1, 118))
    assert [taxonomy()[i].name for i in (25, 45, 80, 52, 65)] == ["Building", "Airport", "Airport"] + [
        "Swimming Pool"
    ] * 2
