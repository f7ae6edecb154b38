import hashlib
import io
import json
import tarfile
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from pipelines.build import BuildConfig, build_store
from pipelines.build.seeds import digest
from pipelines.build.sources.base import UnusableImage
from pipelines.build.sources.synthetic.source import SyntheticConfig, SyntheticSource
from pipelines.build.split import cut_splits, group_digest
from pipelines.config.building import SplitConfig
from unigeoseg.errors import UserError

SMALL = {"workers": 0, "block_images": 8, "source": {"scenes": 24}}


def config(**changes):
    return BuildConfig(**(SMALL | changes))


def build(out, progress=False, preview=False, force=False, **changes):
    return build_store(
        "synthetic", None, out, config(**changes), progress=progress, preview=preview, force=force
    )


def contents(folder):
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "store"
    result = build(folder, preview=True)
    return folder, result


def test_result_counts_agree_from_stage_to_stage(store):
    _, result = store
    stages = {row["name"]: row for row in result["stages"]}
    for row in stages.values():
        if row["name"] != "tile":
            assert row["in"] == row["out"] + sum(row["dropped"].values()), row
    assert stages["area"]["in"] == stages["split"]["out"]
    assert stages["rules"]["in"] == stages["interactive"]["in"] == stages["area"]["out"]
    assert stages["referring"]["in"] == stages["reasoning"]["in"] == stages["rules"]["out"]
    assert stages["diversity"]["in"] == stages["reasoning"]["out"]
    assert stages["write"]["out"] == sum(result["samples"].values())
    assert all(result["samples"].values())
    json.dumps(result)


def test_ranges_of_the_index_are_readable_fragments(store):
    folder, _ = store
    rows = pq.read_table(folder / "index.parquet").to_pylist()
    assert rows == sorted(rows, key=lambda r: (r["shard"], r["offset"], r["n"]))
    assert len({r["sample_id"] for r in rows}) == len(rows)
    seen = Counter()
    for row in rows:
        data = (folder / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["nbytes"]]
        assert row["nbytes"] % 512 == 0
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            image, record = tar.getmembers()
            document = json.load(tar.extractfile(record))
        assert (image.name, record.name) == (f"{row['key']}.png", f"{row['key']}.json")
        assert (image.mtime, image.uid, image.gid, image.mode) == (0, 0, 0, 0o644)
        sample = document["samples"][row["n"]]
        mask = coco.decode(sample["mask"] | {"counts": sample["mask"]["counts"].encode()})
        assert mask.shape == (row["height"], row["width"]) and mask.sum() == row["mask_area"]
        ys, xs = mask.nonzero()
        assert row["box_area"] == (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)
        assert {k: sample[k] for k in ("sample_id", "task", "category_id")} == {
            k: row[k] for k in ("sample_id", "task", "category_id")
        }
        assert row["words"] == len(sample["instruction"].split())
        seen[document["key"], sample["task"], sample["category_id"]] += sample["task"] != "interactive"
    assert max(seen.values()) <= 2


def test_shards_are_plain_tars_with_the_stated_checksums(store):
    folder, result = store
    card = json.loads((folder / "dataset.json").read_text())
    rows = pq.read_table(folder / "index.parquet").to_pylist()
    for shard in card["shards"]:
        data = (folder / shard["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])
        with tarfile.open(folder / shard["path"]) as tar:
            assert len(tar.getnames()) == 2 * shard["images"]
    assert card["counts"]["task"] == result["samples"]
    assert card["instruction_words"]["referring"] == pytest.approx(
        np.mean([r["words"] for r in rows if r["task"] == "referring"]), abs=1e-3
    )
    assert sorted(f.name for f in folder.iterdir()) == [
        "dataset.json",
        "index.parquet",
        "preview-interactive.png",
        "preview-reasoning.png",
        "preview-referring.png",
        "shards",
    ]


@pytest.mark.sheets
def test_same_bytes_twice_whatever_the_blocks(store, tmp_path):
    folder, _ = store
    build(tmp_path / "again", preview=True, block_images=5)
    assert contents(tmp_path / "again") == contents(folder)
    build(tmp_path / "other", seed=1)
    assert (
        contents(tmp_path / "other")["shards/train-00000.tar"] != contents(folder)["shards/train-00000.tar"]
    )


def test_many_shards_hold_the_same_records(store, tmp_path):
    folder, _ = store
    build(tmp_path / "s", shard_bytes=100_000)
    rows = pq.read_table(tmp_path / "s" / "index.parquet").to_pylist()
    assert len({r["shard"] for r in rows}) > 3
    assert [r["sample_id"] for r in rows] == [
        r["sample_id"] for r in pq.read_table(folder / "index.parquet").to_pylist()
    ]


def test_an_interrupted_build_goes_on(store, tmp_path, monkeypatch):
    folder, _ = store
    out, read, calls = tmp_path / "s", SyntheticSource.read, []

    def failing(self, item):
        calls.append(item.key)
        if len(calls) > 19:
            raise KeyboardInterrupt
        return read(self, item)

    monkeypatch.setattr(SyntheticSource, "read", failing)
    with pytest.raises(KeyboardInterrupt):
        build(out)
    assert not (out / "dataset.json").exists()
    monkeypatch.setattr(
        SyntheticSource, "read", lambda self, item: calls.append(item.key) or read(self, item)
    )
    with pytest.raises(UserError, match="unfinished build"):
        build(out, seed=3)
    calls.clear()
    build(out)
    assert calls == [f"scene_{i:06d}" for i in range(16, 24)]  # only the block that was not finished
    assert contents(out / "shards") == contents(folder / "shards")


def test_a_finished_store_is_kept_unless_forced(store, tmp_path):
    out = tmp_path / "s"
    build(out, source={"scenes": 3})
    before = contents(out)
    with pytest.raises(UserError, match="--force"):
        build(out, source={"scenes": 4})
    assert contents(out) == before
    build(out, source={"scenes": 4}, force=True)
    assert json.loads((out / "dataset.json").read_text())["images"] == 4


def test_other_peoples_files_are_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(UserError, match=r"thesis\.txt"):
            build(tmp_path, force=force)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    with pytest.raises(UserError, match="folder"):
        build(tmp_path / "thesis.txt")


def test_unusable_images_stop_the_build_or_are_named(tmp_path, monkeypatch):
    read = SyntheticSource.read

    def failing(self, item):
        if item.key == "scene_000005":
            raise UnusableImage("unreadable_image", "five.png", "no image")
        return read(self, item)

    monkeypatch.setattr(SyntheticSource, "read", failing)
    with pytest.raises(UserError, match=r"five\.png: no image.*max_bad_share"):
        build(tmp_path / "a")
    result = build(tmp_path / "a", max_bad_share=0.05)  # goes on: the limit changes no bytes
    assert result["quarantined"] == [{"file": "five.png", "reason": "unreadable_image", "detail": "no image"}]
    assert result["stages"][0]["dropped"] == {"unreadable_image": 1}
    assert json.loads((tmp_path / "a" / "dataset.json").read_text())["quarantined"] == result["quarantined"]


def test_nothing_left_is_said_with_reasons(tmp_path):
    with pytest.raises(UserError, match="too_small"):
        build(
            tmp_path / "s",
            rules={"min_area": 0.6, "max_area": 0.7},
            source={"scenes": 2, "layouts": ["sports"]},
        )


def test_cap_and_diversity(tmp_path):
    build(tmp_path / "s", category_cap=3, instruct={"diversity_quantile": 0.0})
    rows = pq.read_table(tmp_path / "s" / "index.parquet").to_pylist()
    assert max(Counter((r["task"], r["category_id"]) for r in rows).values()) == 3
    all_tiles = build(tmp_path / "t", instruct={"diversity_quantile": 0.0})
    some = build(tmp_path / "u", instruct={"diversity_quantile": 0.9})
    assert 0 < some["samples"]["reasoning"] < all_tiles["samples"]["reasoning"]


def test_splits_keep_groups_together():
    groups = [f"g{i}" for i in range(37)]
    found = assign_splits(groups, SplitConfig(val=0.2, test=0.1), 5)
    assert Counter(found.values()) == {"train": 26, "val": 7, "test": 4}
    assert found == assign_splits(reversed(groups), SplitConfig(val=0.2, test=0.1), 5)
    assert found != assign_splits(groups, SplitConfig(val=0.2, test=0.1), 6)
    assert set(assign_splits(["a", "b"], SplitConfig(val=0.1), 0).values()) == {"train", "val"}
    assert assign_splits(["a"], SplitConfig(val=0.5), 0) == {"a": "train"}
    assert digest("a", "b") != digest("ab")


def test_scenes_are_hard_enough():
    source = SyntheticSource(SyntheticConfig(scenes=60), 0)
    regions, repeated, shares, categories = [], [], [], set()
    for item in source.items():
        image = source.read(item)
        area = {n: float((image.labels == n).mean()) for n in image.instances}
        visible = [n for n, a in area.items() if 0.005 <= a <= 0.7]
        kinds = Counter(image.instances[n] for n in visible)
        regions.append(len(visible))
        repeated.append(any(k >= 2 for k in kinds.values()))
        shares += [area[n] for n in visible]
        categories |= set(kinds)
    assert np.mean(regions) >= 6 and np.mean(repeated) > 0.9
    assert 0.02 < np.mean(shares) < 0.05 and len(categories) >= 12


def test_scenes_do_not_depend_on_how_many_there_are_and_scale():
    few, many = (SyntheticSource(SyntheticConfig(scenes=n), 7) for n in (3, 9))
    for a, b in zip(few.items(), many.items(), strict=False):
        assert (few.read(a).pixels == many.read(b).pixels).all()
    large = SyntheticSource(SyntheticConfig(scenes=1, size=256), 7)
    image = large.read(large.items()[0])
    assert image.pixels.shape == (256, 256, 3) and image.labels.shape == (256, 256)


def assign_splits(groups, config, seed):
    """The split of each group, as a build of a source with these groups of scenes decides it."""
    names = sorted(set(groups))
    splits = cut_splits(np.asarray([group_digest(seed, g) for g in names], np.uint64), config, seed)
    return {group: splits.of(group) for group in names}
