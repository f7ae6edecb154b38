"""Model, store, output and run folder on an S3 endpoint: the same numbers as from folders."""

import json
import shutil

import pytest
import yaml

from cluster.s3 import LocalS3
from pipelines.config import Config
from pipelines.evaluate.command import evaluate_command
from pipelines.evaluate.final import evaluate_run
from pipelines.storage.filesystem import open_filesystem
from tests.release_layouts import refsegrs
from tests.tiny_export import write_export
from tests.tiny_store import write_store
from unigeoseg.errors import UserError

pytestmark = pytest.mark.integration


@pytest.fixture
def s3(monkeypatch):
    with LocalS3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server.url


def test_everything_on_s3(s3, tmp_path):
    store, run = write_store(tmp_path / "store", images=6, split="val"), tmp_path / "run"
    write_export(run / "export")
    config = Config(name="remote", evaluation={"workers": 0})
    (run / "config.yaml").write_text(yaml.safe_dump(config.plain()))
    filesystem, bucket = open_filesystem(s3)
    for folder in (store, run):
        filesystem.put(f"{folder}/", f"{bucket}/{folder.name}/", recursive=True)

    here = evaluate_command(model=str(run), data=str(store), split="val", out=str(tmp_path / "out"))
    there = evaluate_command(model=f"{s3}/run", data=f"{s3}/store", split="val", out=f"{s3}/out")
    assert there["model"] == f"{s3}/run/export"
    assert {k: v for k, v in there.items() if k not in ("model", "data")} == {
        k: v for k, v in here.items() if k not in ("model", "data")
    }
    local = (tmp_path / "out/per_sample.parquet").read_bytes()
    filesystem.invalidate_cache()
    assert filesystem.cat_file(f"{bucket}/out/per_sample.parquet") == local

    shutil.rmtree(run)
    tasks = evaluate_run(f"{s3}/run", f"{s3}/store", config, progress=False)
    assert tasks["referring"]["gIoU"] == here["tasks"]["referring"]["gIoU"]
    filesystem.invalidate_cache()
    names = {str(name).removeprefix(f"{bucket}/run/") for name in filesystem.find(f"{bucket}/run")}
    wanted = {"report.html", "plots/samples-reasoning.png", "evaluation/evaluation.json"}
    assert wanted <= names
    assert json.loads(filesystem.cat_file(f"{bucket}/run/evaluation/measures.json")) == tasks


def test_a_benchmark_on_s3(s3, tmp_path):
    refsegrs(tmp_path / "bench", images=3)
    export = write_export(tmp_path / "export")
    filesystem, bucket = open_filesystem(s3)
    filesystem.put(f"{tmp_path}/bench/", f"{bucket}/bench/", recursive=True)
    here = evaluate_command(model=str(export), data=str(tmp_path / "bench"))
    there = evaluate_command(model=str(export), data=f"{s3}/bench")
    assert there["layout"] == "refsegrs"
    assert there["tasks"] == here["tasks"]
    filesystem.rm(f"{bucket}/bench/masks/1.tif")
    filesystem.invalidate_cache()
    with pytest.raises(UserError, match=r"masks/1\.tif"):
        evaluate_command(model=str(export), data=f"{s3}/bench")
