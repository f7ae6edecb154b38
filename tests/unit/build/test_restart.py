"""A build that is killed at any write, and started again, gives the bytes of an undisturbed one."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from pipelines.build import BuildConfig, build_store
from pipelines.build.balance import Cap, quantile, rank
from pipelines.build.shards import Packing
from pipelines.build.split import cut_splits, group_digest
from pipelines.config.building import SplitConfig
from pipelines.store import writer

CONFIG = BuildConfig(
    workers=0, block_images=3, shard_bytes=60_000, category_cap=6, source={"scenes": 8}, split={"val": 0.3}
)


def build(out):
    return build_store("synthetic", None, out, CONFIG, progress=False, preview=False)


def contents(folder):
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_killed_at_every_write_and_started_again(tmp_path, monkeypatch):
    result = build(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    disk, _ = writer.open_filesystem(str(tmp_path))
    move = type(disk).mv
    fresh, written = [], set()

    def dying(self, source, target, **options):
        if target not in written:
            fresh.append(target)
        if len(fresh) == 2:
            raise KeyboardInterrupt
        written.add(target)
        return move(self, source, target, **options)

    monkeypatch.setattr(type(disk), "mv", dying)
    again = None
    while again is None:  # each run writes one file more than the one before it
        fresh.clear()
        try:
            again = build(tmp_path / "s")
        except KeyboardInterrupt:
            assert not (tmp_path / "s" / "dataset.json").exists()
            assert len(written) < 60
    # plan, items, two files a block, three a shard, index, card
    assert len(written) == 4 + 2 * 3 + 3 * len([name for name in expected if name.endswith(".tar")])
    assert contents(tmp_path / "s") == expected
    assert again["stages"] == result["stages"] and again["samples"] == result["samples"]


def test_killed_while_tidying_up(tmp_path, monkeypatch):
    build(tmp_path / "whole")
    monkeypatch.setattr(
        "pipelines.build.build.forget_parts", lambda store: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "s")
    assert (tmp_path / "s" / "_build").exists()
    monkeypatch.undo()
    build(tmp_path / "s")
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 0.97, 1.0])
def test_quantiles_of_counted_values_are_numpys(share):
    rng = np.random.default_rng(3)
    for size in (1, 2, 7, 100, 1001):
        values = rng.integers(0, 9, size)
        assert quantile(Counter(values.tolist()), share) == pytest.approx(float(np.quantile(values, share)))
    assert quantile({}, share) == 0.0


def test_caps_keep_the_first_of_a_seeded_order():
    rng = np.random.default_rng(0)
    samples = [(f"s{i}", ("referring", int(rng.integers(3)))) for i in range(200)]
    cap = Cap(20)
    for start in range(0, 200, 30):
        found = {}
        for name, kind in samples[start : start + 30]:
            found.setdefault(kind, []).append(rank(5, name))
        cap.add({kind: sorted(ranks)[:21] for kind, ranks in found.items()})
    last = cap.last()
    for kind in {kind for _, kind in samples}:
        ordered = sorted(rank(5, name) for name, k in samples if k == kind)
        assert last.get(kind) == (ordered[19] if len(ordered) > 20 else None)


def test_images_fill_shards_as_if_they_were_written_one_after_the_other():
    rng = np.random.default_rng(0)
    blocks = [{s: rng.integers(1, 90, int(rng.integers(0, 12))) for s in ("train", "val")} for _ in range(30)]
    packing = Packing(200)
    for number, sizes in enumerate(blocks):
        packing.add(number, sizes)
    shards = packing.shards()
    for split in ("train", "val"):
        flat = [(n, i, int(v)) for n, sizes in enumerate(blocks) for i, v in enumerate(sizes[split])]
        expected, here, total = [], [], 0
        for n, i, size in flat:
            here.append((n, i))
            total += size
            if total >= 200:
                expected.append(here)
                here, total = [], 0
        expected += [here] if here else []
        own = [shard for shard in shards if shard.split == split]
        assert [shard.path for shard in own] == [f"shards/{split}-{n:05d}.tar" for n in range(len(own))]
        assert [[(b, i) for b, f, t in shard.parts for i in range(f, t)] for shard in own] == expected


def test_splits_cut_the_seeded_order_of_groups():
    names = [f"g{i}" for i in range(41)]
    digests = np.asarray([group_digest(9, name) for name in [*names, *names[:7]]], np.uint64)
    splits = cut_splits(digests, SplitConfig(val=0.2, test=0.1), 9)
    ordered = sorted(names, key=lambda name: group_digest(9, name))
    assert [splits.of(name) for name in ordered] == ["val"] * 8 + ["test"] * 4 + ["train"] * 29
    assert splits.of("g0", "test") == splits.of("g0")
    own = cut_splits(digests, SplitConfig(own=True), 9)
    assert own.of("g0", "test") == "test" and own.of(ordered[-1]) == "train"
