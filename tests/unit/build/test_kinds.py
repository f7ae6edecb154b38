"""Collective and absent samples: the union of a category's labels; categories that are surely not there."""

import dataclasses
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pycocotools import mask as coco

from jobs.cli import cli
from pipelines.build import BuildConfig, build_store
from pipelines.build.instruct.facts import TileFacts
from pipelines.build.instruct.kinds import all_of, all_that, confused, none_of, none_that
from pipelines.build.instruct.plans import ALL_OF, COLLECTIVE_PLANS, COLLECTIVE_QUESTIONS, OPEN
from pipelines.build.instruct.roles import names_category, roles
from pipelines.build.kinds import Kinds
from pipelines.build.labelled import Labelled
from pipelines.build.process import regions_of
from pipelines.build.sources.base import SourceImage
from pipelines.build.sources.synthetic.source import SyntheticConfig, SyntheticSource
from pipelines.curate.lint_text import text_faults
from pipelines.labels.regions import Region
from pipelines.labels.stages import StageCounts
from pipelines.labels.taxonomy import category_id, taxonomy
from pipelines.store.reader import StoreReader
from pipelines.store.record import parse_fragment
from pipelines.store.scan import fragments, open_all_splits, places
from pipelines.store.writer import INDEX_SCHEMA, IndexWriter, ShardWriter, shard_path, write_card
from tests.unit.build.texts import faults, tile
from unigeoseg.samples.sample import Sample
from unigeoseg.tasks import ABSENT, COLLECTIVE, REASONING, REFERRING

NAMES = ("Building", "Pond", "Lake", "Ship", "Tennis Court", "Road", "Cropland", "Storage Tank")
IDS = tuple(category_id(name) for name in NAMES)
KIN = {frozenset(pair) for pair in (("Pond", "Lake"),)}


def settings(**instruct):
    chosen = {"collective": 1.0, "absent": 1.0, "diversity_quantile": 0.0} | instruct
    return BuildConfig(instruct=chosen)


def random_tile(seed, instances):
    """Labels with blocks and single pixels of some categories; of instances each block has a number."""
    rng = np.random.default_rng(seed)
    labels, kinds = np.zeros((64, 80), np.int32), {}
    for n in range(1, int(rng.integers(2, 9))):
        kinds[n] = int(rng.choice(IDS[: int(rng.integers(2, len(IDS)))]))
        y, x, h, w = *rng.integers(0, 60, 2), *rng.integers(1, 22, 2)
        labels[y : y + h, x : x + w] = n if instances else kinds[n]
    return SourceImage(
        np.zeros((64, 80, 3), np.uint8), labels, kinds if instances else None, vocabulary=frozenset(IDS)
    )


def as_regions(part):
    """The same labels as objects of a box source, each a region of its own."""
    found = []
    for number, kind in part.instances.items():
        rows, columns = np.nonzero(part.labels == number)
        if len(rows):
            y0, x0, y1, x1 = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
            found.append(Region(kind, y0, x0, y1, x1, part.labels[y0:y1, x0:x1] == number))
    return SourceImage(part.pixels, np.zeros_like(part.labels), regions=found, vocabulary=part.vocabulary)


def made(part, config, others=(), name="t"):
    regions, _ = regions_of(part, config.rules)
    kinds = Kinds(name, Labelled(part), TileFacts(regions, part.height, part.width), config)
    return kinds.samples([{"task": task} for task in others], StageCounts())


def decoded(sample):
    return coco.decode(sample["mask"] | {"counts": sample["mask"]["counts"].encode()})


@pytest.mark.parametrize("form", ["semantic", "instances", "boxes"])
@pytest.mark.parametrize("seed", range(25))
def test_masks_are_the_union_of_all_labels_or_empty_and_true(seed, form):
    part = random_tile(seed, form != "semantic")
    truth = [[part.instances.get(n, 0) if part.instances else n for n in row] for row in part.labels.tolist()]
    there = {kind for row in truth for kind in row} - {0}
    samples = made(
        as_regions(part) if form == "boxes" else part, settings(), [REFERRING] * 5 + [REASONING] * 5
    )
    for sample in samples:
        mask, category = decoded(sample), sample["category_id"]
        assert sample["category"] == taxonomy()[category].name and sample["box"] is sample["points"] is None
        for y, row in enumerate(truth):
            for x, kind in enumerate(row):
                assert mask[y, x] == (sample["subtask"] == COLLECTIVE and kind == category)
        if sample["subtask"] == COLLECTIVE:
            share = mask.mean()
            assert category in there and 0.005 <= share <= 0.7
        else:
            assert sample["subtask"] == ABSENT and category not in there
            for other in there:
                assert frozenset((sample["category"], taxonomy()[other].name)) not in KIN
    assert {s["task"] for s in samples} <= {REFERRING, REASONING}
    assert [s for s in samples if s["subtask"] == ABSENT]  # eight categories, never all of them
    numbers = [s["sample_id"] for s in samples if s["task"] == REFERRING]
    assert numbers == [f"t/referring/{5 + n}" for n in range(len(numbers))]


def test_what_may_be_there_is_not_said_to_be_absent():
    part = random_tile(3, instances=True)
    labelled = Labelled(part)
    free = labelled.absent(0.0)
    assert free and set(free) <= set(IDS) - labelled.present
    hidden = free[0]
    for field in ("partial", "reaching"):
        other = SourceImage(part.pixels, part.labels, part.instances, vocabulary=part.vocabulary)
        setattr(other, field, frozenset({hidden}))
        assert hidden not in Labelled(other).absent(0.0)
        assert (hidden in Labelled(other).whole()) is False
    one = sorted(labelled.present)[0]
    crowd = SourceImage(
        part.pixels, part.labels, part.instances, vocabulary=part.vocabulary, partial=frozenset({one})
    )
    assert one not in Labelled(crowd).whole() and one in labelled.whole()
    veiled = SourceImage(part.pixels, part.labels, part.instances, vocabulary=part.vocabulary, unlabelled=52)
    assert Labelled(veiled).absent(0.0) == [] and Labelled(veiled).absent(0.01) == []
    assert Labelled(veiled).absent(52 / 5120) == free
    assert Labelled(SourceImage(part.pixels, part.labels, part.instances)).absent(0.0) == []


def test_names_kinds_and_parts_are_confused():
    of = category_id
    assert confused(of("Pond"), {of("Water")}) and confused(of("Ship"), {of("Warship")})
    assert confused(52, {65}) and confused(65, {52}) and confused(45, {80})  # one name, two ids
    assert confused(of("Building"), {of("Stadium")}) and confused(of("Tree"), {of("Forest")})
    assert not confused(of("Ship"), {of("Building"), of("Water")})
    for category in taxonomy():
        assert confused(category, {category})


def test_numbers_follow_the_share_and_settings_do_not_disturb_each_other():
    part = random_tile(5, instances=True)
    for share in (0.0, 0.4, 1.0):
        for name in ("collective", "absent"):
            other = {"collective": 0.0, "absent": 0.0} | {name: share}
            counts = [
                len(made(random_tile(s, True), settings(**other), [REFERRING] * 2, f"t{s}"))
                for s in range(200)
            ]
            # Two referring samples ask for 2 * share in the mean, no question counts as one; of what is there
            # not enough may be of a fit size.
            most = 3 * share * 200
            assert (0.9 if name == "absent" else 0.3) * most <= sum(counts) <= 1.1 * most
    alone = made(part, settings(collective=0.0), [REFERRING])
    both = [s for s in made(part, settings(), [REFERRING]) if s["subtask"] == ABSENT]
    strip = [{k: v for k, v in s.items() if k != "sample_id"} for s in alone]
    assert strip == [{k: v for k, v in s.items() if k != "sample_id"} for s in both]


def test_every_text_is_well_formed_and_says_what_it_should():
    facts, rng = tile(0, IDS)
    plans = set()
    known = [
        re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(plan)), re.IGNORECASE)
        for plan in (*COLLECTIVE_PLANS, *COLLECTIVE_QUESTIONS, *OPEN)
    ]
    for category in sorted(taxonomy()) * 12:
        name = taxonomy()[category].name
        for task, kind, told in (
            (REFERRING, COLLECTIVE, all_of(category, rng)),
            (REFERRING, ABSENT, none_of(category, facts, rng)),
            (REASONING, COLLECTIVE, all_that(category, rng)),
            (REASONING, ABSENT, none_that(category, rng)),
        ):
            assert told is not None, name
            assert not faults(told.instruction), told.instruction
            assert not told.answer or not faults(told.answer), told.answer
            assert bool(told.answer) == ((task, kind) != (REFERRING, COLLECTIVE))
            assert names_category(told.instruction, name) == (task == REFERRING), told.instruction
            sample = Sample(
                "x",
                task,
                told.instruction,
                answer=told.answer,
                subtask=kind,
                category_id=category,
                category=name,
            )
            shown = frozenset() if kind == ABSENT else frozenset({name})
            for author in ("writer", "endpoint", None):
                assert not text_faults(sample, author, shown), told.instruction
            plans |= {i for i, plan in enumerate(known) if plan.match(told.instruction)}
    assert plans == set(range(len(known)))
    assert len(OPEN) >= 8 and len(ALL_OF) >= 8
    for plan in (*COLLECTIVE_QUESTIONS, *OPEN):
        for name in roles():
            assert not names_category(re.sub(r"\{\w+\}", "", plan), name), (name, plan)


SMALL = {"workers": 0, "block_images": 8, "source": {"scenes": 16}}


def synthetic(out, **changes):
    return build_store(
        "synthetic", None, out, BuildConfig(**(SMALL | changes)), progress=False, preview=False
    )


def rows_of(store):
    return pq.read_table(store / "index.parquet").to_pylist()


def records(store):
    """Every sample's JSON by its id."""
    found = {}
    for one in StoreReader(open_all_splits(str(store))).load(range(len(rows_of(store)))):
        assert one.sample is not None, one.reason
        found[one.sample_id] = one.sample
    return found


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    synthetic(folder / "off")
    result = synthetic(folder / "on", instruct={"collective": 0.5, "absent": 0.5, "diversity_quantile": 0.0})
    synthetic(folder / "plain", instruct={"diversity_quantile": 0.0})
    return folder, result


def test_a_store_without_them_has_the_bytes_it_had(stores, tmp_path):
    folder, _ = stores
    assert {row["subtask"] for row in rows_of(folder / "off")} <= {
        "box",
        "point",
        "object",
        "attribute",
        "context",
    }
    card = json.loads((folder / "off" / "dataset.json").read_text())
    assert "kind" not in card["counts"]
    plain, on = records(folder / "plain"), records(folder / "on")
    for name, sample in plain.items():
        other = on[name]
        assert (sample.mask == other.mask).all()
        assert dataclasses.replace(sample, mask=None) == dataclasses.replace(other, mask=None)
    assert {s.subtask for name, s in on.items() if name not in plain} == {COLLECTIVE, ABSENT}


def test_the_public_commands_know_them(stores):
    folder, result = stores
    stages = {row["name"]: row for row in result["stages"]}
    assert stages[REFERRING]["noted"][COLLECTIVE] and stages[REASONING]["noted"][ABSENT]
    for row in stages.values():
        if row["name"] != "tile":
            assert row["in"] == row["out"] + sum(row["dropped"].values()), row
    assert stages["diversity"]["in"] == stages["reasoning"]["out"]
    found = CliRunner().invoke(cli, ["data", "lint", str(folder / "on"), "--workers", "1"])
    assert found.exit_code == 0, found.output
    found = CliRunner().invoke(cli, ["data", "info", str(folder / "on")])
    assert re.search(r"^collective: reasoning \d+, referring \d+$", found.output, re.MULTILINE), found.output
    assert re.search(r"^absent: reasoning \d+, referring \d+$", found.output, re.MULTILINE)
    info = json.loads(CliRunner().invoke(cli, ["data", "info", str(folder / "on"), "--json"]).output)
    rows = rows_of(folder / "on")
    for kind in (COLLECTIVE, ABSENT):
        for task, count in info["counts"]["kind"][kind].items():
            assert count == sum(r["subtask"] == kind and r["task"] == task for r in rows)
    for row in rows:
        assert (row["mask_area"] == 0) == (row["subtask"] == ABSENT)


def test_absent_categories_have_no_pixel_in_their_scene(stores):
    folder, _ = stores
    source = SyntheticSource(SyntheticConfig(scenes=16), 0)
    shown = {}
    for item in source.items():
        image = source.read(item)
        numbers = np.unique(image.labels[image.labels > 0])
        shown[item.key] = {image.instances[int(n)] for n in numbers}, image
    everywhere = set().union(*(kinds for kinds, _ in shown.values()))
    absent = collective = 0
    for name, sample in records(folder / "on").items():
        kinds, image = shown[name.split("/")[1]]
        if sample.subtask == ABSENT:
            absent += 1
            assert sample.category_id not in kinds and sample.category_id in everywhere
        elif sample.subtask == COLLECTIVE:
            collective += 1
            numbers = [n for n, kind in image.instances.items() if kind == sample.category_id]
            assert (sample.mask == np.isin(image.labels, numbers)).all()
    assert absent > 30 and collective > 30


def test_lint_names_an_absent_sample_with_a_mask_or_beside_what_it_denies(stores, tmp_path):
    folder, _ = stores
    (absent, *_) = (s for s in records(folder / "on").values() if s.subtask == ABSENT and s.task == REFERRING)
    scene = absent.sample_id.split("/")[1]

    def changed(sample):
        """The next plain sample of the scene, said to be absent; or one whose category is."""
        same = sample["sample_id"].split("/")[1] == scene
        if same and sample["subtask"] == "object":
            return sample | {"subtask": ABSENT}
        if same and sample["subtask"] == "box":
            return sample | {"category": absent.category, "category_id": absent.category_id}
        return sample

    rewrite(folder / "on", tmp_path / "bad", changed)
    found = CliRunner().invoke(cli, ["data", "lint", str(tmp_path / "bad"), "--workers", "1", "--json"])
    assert found.exit_code == 2
    errors = json.loads(found.stdout)["errors"]
    assert any(e["reason"].startswith("absent_mask: the target is said to be absent") for e in errors)
    assert {
        "sample_id": absent.sample_id,
        "reason": f"absent: another sample of the image shows {absent.category}",
    } in [dict(e) for e in errors]


def rewrite(source, target, change):
    """A store with other samples: shards, index and sums written by their writers."""
    index = open_all_splits(str(source))
    writers = {}
    for _, data in fragments(str(source), places(index)):
        fragment = parse_fragment(data)
        split = fragment.record["split"]
        if split not in writers:
            writers[split] = ShardWriter(str(target), shard_path(split, 0), split)
        writers[split].add(
            fragment.record | {"samples": [change(s) for s in fragment.record["samples"]]}, fragment.image
        )
    entries = [writers[split].close() for split in sorted(writers)]
    out = IndexWriter(str(target))
    for split in sorted(writers):
        out.add(pa.Table.from_pylist(writers[split].rows, schema=INDEX_SCHEMA))
    out.close()
    write_card(str(target), index.card | {"shards": entries})


def test_what_is_said_holds_for_every_view():
    for sample in made(random_tile(3, True), settings(views=True), [REFERRING] * 3):
        told = {"instruction": sample["instruction"], "answer": sample["answer"]}
        assert sample["views"] == [told] * 7
    assert all("views" not in sample for sample in made(random_tile(3, True), settings(), [REFERRING] * 3))
