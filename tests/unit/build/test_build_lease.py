"""Two builds of one store, builds that go on past bad images, and what a card says of scenes and tiles."""

import json
import os
import time
from dataclasses import asdict

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from jobs.cli import cli
from pipelines.build import BuildConfig, build, build_store, runner
from pipelines.curate.merge import merge_stores
from pipelines.storage.lease import LEASE, Holder
from tests.release_layouts import refsegrs
from tests.unit.build.layouts import write_image
from unigeoseg.errors import UserError

CONFIG = BuildConfig(workers=0, source={"scenes": 4, "size": 128}, split={"val": 0.0})


def make(out, **options):
    return build_store("synthetic", None, out, CONFIG, progress=False, preview=False, **options)


def left(folder, **changes):
    """A lease of another job."""
    folder.mkdir(exist_ok=True)
    own = psutil.Process()
    holder = Holder("other", "elsewhere", "elsewhere", own.pid, own.create_time(), time.time(), 60.0)
    (folder / LEASE).write_text(json.dumps(asdict(holder) | changes))


def test_a_second_build_of_a_store_is_refused_and_writes_nothing(tmp_path, monkeypatch):
    out, shards = tmp_path / "s", build._Build._shards

    def meanwhile(self, *arguments):
        before = sorted(p.relative_to(out) for p in out.rglob("*"))
        for force in (False, True):
            with pytest.raises(UserError, match=rf"in use by process {os.getpid()}.*name another --out"):
                make(out, force=force)
        assert sorted(p.relative_to(out) for p in out.rglob("*")) == before
        return shards(self, *arguments)

    monkeypatch.setattr(build._Build, "_shards", meanwhile)
    make(out)
    assert (out / "dataset.json").exists() and not (out / LEASE).exists()


def test_a_store_is_free_when_its_builder_is_gone(tmp_path):
    left(tmp_path / "s")
    with pytest.raises(UserError, match="on elsewhere"):
        make(tmp_path / "s")
    left(tmp_path / "s", beat=time.time() - 61)
    make(tmp_path / "s")
    assert not (tmp_path / "s" / LEASE).exists()


def test_a_build_that_lost_its_place_does_not_finish_the_store(tmp_path, monkeypatch):
    out, shards = tmp_path / "s", build._Build._shards

    def meanwhile(self, *arguments):
        found = shards(self, *arguments)
        left(out)
        return found

    monkeypatch.setattr(build._Build, "_shards", meanwhile)
    with pytest.raises(UserError, match="not this job's any more"):
        make(out)
    assert not (out / "dataset.json").exists() and (out / LEASE).exists()


def test_a_merge_holds_its_place_and_foreign_folders_stay_untouched(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b")
    stores = [str(tmp_path / name) for name in "ab"]
    left(tmp_path / "m")
    with pytest.raises(UserError, match="on elsewhere"):
        merge_stores(stores, str(tmp_path / "m"), "first", progress=False, preview=False)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        make(tmp_path / "f")
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="already holds a finished store"):
        make(tmp_path / "a")
    assert not (tmp_path / "a" / LEASE).exists()


def run(*arguments):
    return CliRunner().invoke(cli, ["data", *map(str, arguments)])


TABLE = (
    "licence: CC0-1.0\n"
    "layouts: [{image: '{area}/{name}.jpg', mask: '{area}/{name}_m.png', group: '{area}'}]\n"
    "classes: [{name: house, value: 1, category: 25 Building}, {name: rest, value: 0, category: null}]\n"
)


def folder(root, images=6, bad=4):
    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 10:40] = 1
    for i in range(images):
        write_image(root / f"a{i}/{i}.jpg", np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8))
        write_image(root / f"a{i}/{i}_m.png", mask)
        if i < bad:
            (root / f"a{i}/{i}.jpg").write_bytes(b"no picture")
    (root / "t.yaml").write_text(TABLE)
    return root


def test_keep_going_leaves_out_what_cannot_be_used_and_names_it(tmp_path):
    root = folder(tmp_path / "in")
    usual = ("build", "--source", root / "t.yaml", "--root", root, "--out", tmp_path / "s")
    sets = ("--set", "workers=0", "--set", "tile.size=48", "--set", "tile.stride=16", "--json")
    stopped = run(*usual, *sets)
    assert isinstance(stopped.exception, UserError) and "--keep-going" in str(stopped.exception)
    went_on = run(*usual, *sets, "--keep-going")
    assert went_on.exit_code == 0, went_on.output
    card = json.loads((tmp_path / "s" / "dataset.json").read_text())
    assert len(card["quarantined"]) == 4 and card["scenes"] == 2
    told = run("info", tmp_path / "s").stdout
    assert (
        "a scene of t: a file; a split keeps one {area} together; "
        "tiles of 48 pixels every 16, neighbours share 32 pixels (67%)" in told
    )


def test_scenes_of_benchmarks_and_of_merged_stores_are_told(tmp_path):
    refsegrs(tmp_path / "in")
    build_store("refsegrs", tmp_path / "in", tmp_path / "r", BuildConfig(workers=0), False, preview=False)
    make(tmp_path / "s")
    merge_stores([str(tmp_path / n) for n in "rs"], str(tmp_path / "m"), progress=False, preview=False)
    told = run("info", tmp_path / "m").stdout
    assert "a scene of refsegrs: an image of the benchmark, not cut into tiles" in told
    assert "a scene of synthetic: a generated image; tiles of 512 pixels every 256" in told


def test_a_builds_workers_follow_the_cluster(monkeypatch):
    import ray

    assert BuildConfig().workers is None and runner.parallel(3) == 3
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 24.0, "GPU": 8.0})
    assert runner.parallel(None) == 24
    started = {}
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: started.update(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with runner.open_runner(None):
        assert (started["address"], started["num_cpus"]) == ("local", len(os.sched_getaffinity(0)))
    started.clear()
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")
    with runner.open_runner(None):
        assert "num_cpus" not in started and "address" not in started
