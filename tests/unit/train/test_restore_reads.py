"""How often a restore reads a shard from an object store (of the memory kind)."""

import json
from collections import Counter

import fsspec
import pytest
import torch

from pipelines.runs.folder import RunFolder
from pipelines.runs.manifest import MANIFEST, checkpoint_name, describe, find_problem
from pipelines.train.checkpoints.restore import _bring
from pipelines.train.engine.pieces import WEIGHT, Piece
from pipelines.train.engine.shards import ShardReader, Snapshot, layout_of, shard_name, write_shard

NAME, WORLD, COUNT = checkpoint_name(4), 3, 10


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint of three ranks, each with ten numbers of one parameter."""
    found = RunFolder("memory://restored/run")
    files = [shard_name(rank, WORLD) for rank in range(WORLD)]
    shards = {}
    for rank, file in enumerate(files):
        of = {"shape": [WORLD * COUNT], "start": rank * COUNT, "count": COUNT, "step": 1}
        snapshot = Snapshot({"weight/w": torch.arange(COUNT) + 100.0 * rank}, {"w": of})
        write_shard(tmp_path / file, snapshot)
        shards[file] = snapshot.parameters
    (tmp_path / "layout.json").write_text(json.dumps(layout_of(shards, {})))
    (tmp_path / MANIFEST).write_text(json.dumps({"files": describe(tmp_path, ["layout.json", *files])}))
    for path in tmp_path.iterdir():
        found.fs.pipe_file(f"{found.root}/{NAME}/{path.name}", path.read_bytes())
    yield found
    found.close()
    fsspec.filesystem("memory").rm("/restored", recursive=True)


@pytest.fixture
def reads(monkeypatch):
    """How often each file was read."""
    files, counts = type(fsspec.filesystem("memory")), Counter()
    for method in ("_open", "cat_file"):
        real = getattr(files, method)

        def counted(self, path, *arguments, real=real, **named):
            if named.get("mode", arguments[0] if arguments else "rb") == "rb":
                counts[str(path).rsplit("/", 1)[-1]] += 1
            return real(self, path, *arguments, **named)

        monkeypatch.setattr(files, method, counted)
    return counts


def _piece(start, count):
    return Piece("w", (WORLD * COUNT,), start, {WEIGHT: torch.empty(count)}, None)


def brought(run, rank, spans):
    layout = json.loads(run.fs.cat_file(f"{run.root}/{NAME}/layout.json"))
    reader = ShardReader(run.base / NAME, layout)
    _bring(run, NAME, reader, [_piece(start, count) for start, count in spans])
    into = torch.empty(sum(count for _, count in spans))
    reader.read("weight", "w", spans[0][0], into)
    return into


@pytest.mark.parametrize("rank", range(WORLD))
def test_of_as_many_ranks_each_reads_its_shard_once(run, reads, rank):
    assert find_problem(run, NAME, rank, WORLD, keep=True) is None
    values = brought(run, rank, [(rank * COUNT, COUNT)])
    assert values.tolist() == [100.0 * rank + i for i in range(COUNT)]
    assert {name: n for name, n in reads.items() if name.startswith("shard")} == {shard_name(rank, WORLD): 1}


def test_one_rank_reads_all_of_them_once(run, reads):
    assert find_problem(run, NAME, keep=True) is None
    assert len(brought(run, 0, [(0, WORLD * COUNT)])) == WORLD * COUNT
    assert {reads[shard_name(rank, WORLD)] for rank in range(WORLD)} == {1}


def test_what_is_damaged_is_found_and_what_is_not_kept_is_fetched(run, reads):
    assert find_problem(run, NAME, 1, 2, keep=True) is None  # the second of two ranks: the second shard
    assert len(brought(run, 1, [(COUNT, 2 * COUNT)])) == 2 * COUNT
    target = f"{run.root}/{NAME}/{shard_name(2, WORLD)}"
    content = bytearray(run.fs.cat_file(target))
    content[-1] ^= 1
    run.fs.pipe_file(target, bytes(content))
    assert "checksum" in find_problem(run, NAME, 0, 2, keep=True)
