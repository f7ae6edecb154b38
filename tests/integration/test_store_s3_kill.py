"""A store on S3 whose build is killed: never half there, gone on with, the same bytes at the end."""

import time
from pathlib import Path

import pytest

from cluster.s3 import LocalS3
from pipelines.build import BuildConfig, build_store
from pipelines.curate.merge import merge_stores
from pipelines.storage.filesystem import open_filesystem
from pipelines.store.index import StoreIndex
from tests.built_store import synthetic_store
from tests.warm import run_warm, start_warm
from unigeoseg.errors import UserError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]
SETS = {"workers": 0, "block_images": 4, "shard_bytes": 100_000}
SCENES = 32


@pytest.fixture(scope="module")
def server():
    with LocalS3(bucket="kill") as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        yield found


def command(out):
    sets = [*(f"{name}={value}" for name, value in SETS.items()), f"source.scenes={SCENES}"]
    options = [part for text in sets for part in ("--set", text)]
    return ["jobs.cli", "data", "build", "--source", "synthetic", "--out", out, *options]


def names(filesystem, root):
    filesystem.invalidate_cache()
    return {str(path).removeprefix(f"{root}/") for path in filesystem.find(root)}


def contents(place):
    filesystem, root = open_filesystem(place)
    return {name: filesystem.cat_file(f"{root}/{name}") for name in sorted(names(filesystem, root))}


def test_a_killed_build_on_s3_is_never_a_store_and_is_gone_on_with(server, tmp_path):
    config = BuildConfig(**SETS, source={"scenes": SCENES})
    build_store("synthetic", None, tmp_path / "whole", config, progress=False)
    out = f"{server.url}/store"
    filesystem, root = open_filesystem(out)
    deaths, finished = 0, []
    for goal in ("_build/part-000001.json", "_build/part-000005.json", "_build/train-00001.json"):
        process = start_warm(*command(out))
        while process.poll() is None and goal not in (there := names(filesystem, root)):
            time.sleep(0.01)
        if process.poll() is None:
            process.kill()
            deaths += 1
        said = process.communicate()[1]
        there = names(filesystem, root)
        if process.returncode == 0:
            break
        assert "dataset.json" not in there
        with pytest.raises(UserError, match="unfinished"):
            StoreIndex.open(out)
        blocks = {name for name in there if name.startswith("_build/part-") and name.endswith(".json")}
        assert set(finished) <= blocks  # nothing that was finished is lost
        assert not finished or f"{len(finished)} of 8 blocks are there" in said
        finished = sorted(blocks)
    assert deaths >= 2
    done = run_warm(*command(out))
    assert done.returncode in (0, 2) and "dataset.json" in names(filesystem, root), done.stderr
    assert contents(out) == contents(str(tmp_path / "whole"))


def test_a_merge_on_s3_that_is_cut_short_is_no_store(server, tmp_path, monkeypatch):
    for name, seed in (("a", 1), ("b", 2)):
        synthetic_store(tmp_path / name, 6, **SETS, split={"val": 0}, seed=seed)
    stores = [str(tmp_path / "a"), str(tmp_path / "b")]
    options = {"on_duplicate": "first", "progress": False, "preview": False}
    merge_stores(stores, str(tmp_path / "whole"), **options)
    out = f"{server.url}/merged"
    with monkeypatch.context() as patch:
        patch.setattr(
            "pipelines.curate.merge.write_card", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            merge_stores(stores, out, **options)
    with pytest.raises(UserError, match="unfinished"):
        StoreIndex.open(out)
    merge_stores(stores, out, **options)
    assert contents(out) == contents(str(tmp_path / "whole"))
