"""What lint says of an instruction and its mask."""

import json
import re
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.build.instruct.candidates import CandidateWriter
from pipelines.build.instruct.referring import refer
from pipelines.curate.lint import lint_store
from pipelines.curate.lint_text import authors, text_faults
from pipelines.labels.taxonomy import taxonomy
from tests.built_store import synthetic_store
from tests.unit.build.texts import tile

TREE, BUILDING, SHIP = 3, 25, next(c.id for c in taxonomy().values() if c.noun == "ship")


def faults(task, category, text, author, shown=()):
    sample = SimpleNamespace(task=task, subtask="object", category_id=category, instruction=text)
    return text_faults(sample, author, frozenset(taxonomy()[c].name for c in shown))


@pytest.mark.parametrize("category", sorted(taxonomy()))
def test_every_phrase_of_the_writer_names_its_category(category):
    others = np.random.default_rng(category).choice(sorted(taxonomy()), 3)
    facts, rng = tile(category, [category, category, *others.tolist()])
    writer = CandidateWriter(facts)
    made = 0
    for target in range(len(facts.regions)):
        for _ in range(3):
            found = refer(writer, facts, target, rng)
            if found is not None:
                made += 1
                assert faults("referring", int(facts.categories[target]), found[0], "writer") == [], found[0]
    assert made


def test_phrases_that_name_something_else():
    assert "names no building" in faults("referring", BUILDING, "Mark the tree on the left.", "writer")[0]
    assert "names no building" in faults("referring", BUILDING, "Mark the thing.", "writer", [BUILDING])[0]
    for author in ("endpoint", None):
        assert faults("referring", BUILDING, "The thing in the corner", author) == []
        assert faults("referring", BUILDING, "The house by the ships", author) == []
        assert faults("referring", BUILDING, "What stands under the tree", author, [TREE, BUILDING]) == []
        wrong = faults("referring", BUILDING, "The two trees near a ship", author, [BUILDING])
        assert len(wrong) == 1 and "it names Ship and Tree, the mask is Building, and no" in wrong[0]


def test_questions_that_give_their_answer_away():
    for author in ("writer", "endpoint"):
        assert "gives Building away" in faults("reasoning", BUILDING, "Which building is safe?", author)[0]
        assert faults("reasoning", BUILDING, "Where would rain not reach a sofa?", author) == []
    assert faults("reasoning", BUILDING, "Which building is safe?", None) == []  # as a benchmark has it
    assert faults("interactive", BUILDING, "[0.1,0.2]", "writer") == []


def test_who_wrote_a_store():
    made = {"rules": {}, "endpoint": {"model": None}}
    asked = {"rules": {}, "endpoint": {"model": "m"}}
    card = {"config": made, "counts": {"source": {"dubai": 5}}}
    assert authors(card) == {"dubai": "writer"}
    assert authors(card | {"config": asked}) == {"dubai": "endpoint"}
    assert authors(card | {"config": {}}) == {} == authors({})
    assert authors({"config": made, "counts": {"source": {"rrsisd": 3}}}) == {}
    stores = [
        {"config": made, "sources": ["dubai", "loveda", "rrsisd"]},
        {"config": asked, "sources": ["dubai"]},
        {"config": {}, "sources": ["mine"]},
    ]
    merged = {"config": {"rules": {}}, "counts": {"source": {"dubai": 1}}, "merge": {"stores": stores}}
    assert authors(merged) == {"dubai": "endpoint", "loveda": "writer"}


def test_a_store_with_swapped_words_is_told(tmp_path):
    synthetic_store(tmp_path / "s", 6)
    assert lint_store(str(tmp_path / "s"), progress=False)["errors"] == []
    shard = next((tmp_path / "s" / "shards").glob("train-*.tar"))
    with tarfile.open(shard) as tar:
        records = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]
    noun = {c.id: c.noun for c in taxonomy().values()}
    texts = [s["instruction"] for r in records for s in r["samples"] if s["task"] == "referring"]
    chosen = next(
        (s["instruction"], noun[s["category_id"]])
        for r in records
        for s in r["samples"]
        if s["task"] == "referring"
        and len(re.findall(noun[s["category_id"]], s["instruction"])) == 1
        and texts.count(s["instruction"]) == 1
    )
    text, word = chosen
    other = text.replace(word, "x" * len(word))
    content = shard.read_bytes()
    assert content.count(json.dumps(text).encode()) == 1
    shard.write_bytes(content.replace(json.dumps(text).encode(), json.dumps(other).encode()))
    found = [e["reason"] for e in lint_store(str(tmp_path / "s"), progress=False)["errors"]]
    assert sorted(reason.split(":")[0] for reason in found) == ["checksum", "phrase"]
    assert f"phrase: it names no {word}" in found
