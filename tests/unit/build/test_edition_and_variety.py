"""What a resumed build must not mix, and how varied a store says its instructions are."""

import ast
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipelines.build import BuildConfig, build_store
from pipelines.build.card import config_hash
from pipelines.build.edition import _FILES, edition, edition_of
from pipelines.build.variety import MOST, Variety
from tests.built_store import synthetic_store
from tests.unit.build.test_store_tools import samples_of
from unigeoseg.errors import UserError

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "pipelines" / "build"
ALONE, ASKING = BuildConfig(), BuildConfig(endpoint={"model": "m"})


@pytest.mark.parametrize(
    ("file", "alone", "asking"),
    [
        ("instruct/plans.py", True, True),
        ("instruct/roles.yaml", True, True),
        ("instruct/words.py", True, True),
        ("rules.py", True, True),
        ("sources/synthetic/scene.py", True, True),
        ("endpoint/prompts.py", False, True),
        ("endpoint/schemas.py", False, True),
        ("endpoint/client.py", False, False),
        ("sources/tables/loveda.yaml", False, False),
        ("preview.py", False, False),
    ],
)
def test_every_file_that_has_a_say_changes_the_edition(file, alone, asking, tmp_path):
    copy = shutil.copytree(PACKAGE, tmp_path / "build", ignore=shutil.ignore_patterns("__pycache__"))
    before = [edition_of(PACKAGE, asks) for asks in (False, True)]
    (copy / file).write_text((copy / file).read_text().replace("e", "E", 1))
    after = [edition_of(copy, asks) for asks in (False, True)]
    assert [a != b for a, b in zip(before, after, strict=True)] == [alone, asking]


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("pipelines/store/segmentation.py", True),
        ("pipelines/store/record.py", True),
        ("pipelines/pictures/masks.py", True),
        ("pipelines/labels/taxonomy.yaml", True),
        ("pipelines/curate/lint.py", False),
        ("pipelines/triplets/truth.py", True),
        ("unigeoseg/samples/prompts.py", True),
        ("pipelines/curate/statistics.py", False),
        ("unigeoseg/losses/terms.py", False),
    ],
)
def test_files_of_other_packages_count_where_they_have_a_say(file, counts, tmp_path):
    for package in ("pipelines", "unigeoseg"):
        shutil.copytree(
            ROOT / package, tmp_path / "a" / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert edition(False, tmp_path / "a") == edition(False)
    (tmp_path / "b" / file).write_text((ROOT / file).read_text() + "# changed\n")
    assert (edition(False, tmp_path / "b") != edition(False)) is counts


def test_whatever_a_build_imports_counts_or_is_known_to_have_no_say(tmp_path):
    """A new module that builds use must be counted, or named here as one that only moves or reads stores."""
    no_say = {
        f"pipelines.store.{name}" for name in ("fetch", "index", "pictures", "reader", "scan", "statistics")
    }
    no_say |= {
        "pipelines.cluster_view.autoscaler",
        "pipelines.cluster_view.ending",
        "pipelines.storage.filesystem",
        "unigeoseg.samples.sample",
        "unigeoseg.errors",
        "unigeoseg.samples.tokens",
    }
    no_say |= {
        "pipelines.config.endpoint",
        "pipelines.storage.ahead",
        "pipelines.storage.lease",
        "pipelines.storage.libraries",
        "pipelines.storage.parquet",
        "pipelines.store.repeated",
    }
    found = set()
    for package in ("build", "labels", "pictures", "triplets"):
        for file in (ROOT / "pipelines" / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                    ("pipelines.", "unigeoseg.")
                ):
                    found.add(node.module)
    own = ("pipelines.build", "pipelines.labels", "pipelines.pictures", "pipelines.triplets")
    others = {name for name in found if not name.startswith(own)}
    assert others - no_say == {name.removesuffix(".py").replace("/", ".") for name in _FILES}


def test_the_edition_does_not_depend_on_where_the_package_lies(tmp_path):
    copy = shutil.copytree(PACKAGE, tmp_path / "b", ignore=shutil.ignore_patterns("__pycache__"))
    assert edition_of(copy, True) == edition_of(PACKAGE, True) != edition_of(PACKAGE, False)


def test_a_build_is_not_finished_with_other_texts(tmp_path, monkeypatch):
    config = BuildConfig(workers=0, block_images=2, source={"scenes": 6})

    def build(out, **options):
        return build_store("synthetic", None, out, config, progress=False, preview=False, **options)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # two of its three blocks are there when it is killed
        patch.setattr("pipelines.build.build.measure_block", killed)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "s")
    (tmp_path / "s" / "_build" / "part-000002.json").unlink()
    plain = config_hash("synthetic", config)
    with monkeypatch.context() as patch:
        from pipelines.build.instruct import plans, referring

        patch.setattr(referring, "REFERRING", tuple(f"kindly {plan}" for plan in plans.REFERRING))
        for module in ("build", "card"):
            patch.setattr(f"pipelines.build.{module}.edition", lambda endpoint: "another")
        assert config_hash("synthetic", config) != plain
        with pytest.raises(UserError, match=r"another version of the rules and texts.*--force"):
            build(tmp_path / "s")
        build(tmp_path / "s", force=True)
        assert any("Kindly" in s["instruction"] for s in samples_of(tmp_path / "s").values())
    card = json.loads((tmp_path / "s" / "dataset.json").read_text())
    assert card["config_hash"] != plain == config_hash("synthetic", config)


def distinct_2(texts):
    pairs = [p for t in texts for p in pairwise([w.strip(".,;:?!") for w in t.lower().split()])]
    return len(set(pairs)) / len(pairs)


def test_distinct_2_is_that_of_a_count_whatever_the_order_and_the_pieces():
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(40)]
    samples = [
        {
            "task": str(rng.choice(["referring", "reasoning"])),
            "sample_id": f"s{n}",
            "instruction": " ".join(rng.choice(words, 6)).capitalize() + ".",
        }
        for n in range(2 * MOST + 700)
    ]
    whole, merged = Variety(), Variety()
    whole.add(samples)
    for start in range(len(samples), -500, -500):
        piece = Variety()
        piece.add(samples[max(start, 0) : start + 500])
        merged.merge(piece.kept())
    assert whole.result() == merged.result()
    assert whole.result()["referring"]["instructions"] == MOST
    few = [s for s in samples if s["task"] == "reasoning"][:300]
    small = Variety()
    small.add(few)
    expected = distinct_2(s["instruction"] for s in few)
    found = small.result()["reasoning"]
    assert found["distinct_2"] == pytest.approx(expected, abs=1e-4) and found["instructions"] == 300


def test_a_store_says_how_varied_it_is(tmp_path):
    synthetic_store(tmp_path / "s", 6)
    card = json.loads((tmp_path / "s" / "dataset.json").read_text())
    for task, row in card["instruction_variety"].items():
        texts = [s["instruction"] for s in samples_of(tmp_path / "s").values() if s["task"] == task]
        assert row["instructions"] == len(texts)
        assert row["distinct_2"] == pytest.approx(distinct_2(texts), abs=1e-4)
