"""Training against a real MLflow server: its database, its artifacts in S3, and what its pages show.

With ``UNIGEOSEG_PICTURES=DIR`` and Chromium, pictures of the pages are left there.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.artifacts import download_artifacts

from cluster.local.services import start_mlflow
from cluster.s3 import LocalS3
from tests.cluster_commands import unigeoseg
from tests.integration.test_experiments import PRESET

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
STEPS = PRESET["train"]["steps"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The server's URL; its artifacts go to a bucket."""
    folder = tmp_path_factory.mktemp("mlflow")
    with LocalS3(bucket="artifacts") as s3:  # with keys it knows no presigned addresses
        environment = {
            **os.environ,
            **s3.environment,
            "MLFLOW_S3_ENDPOINT_URL": s3.environment["AWS_ENDPOINT_URL"],
        }
        backend = f"sqlite:///{folder}/mlflow.db"
        url, pid = start_mlflow("127.0.0.1", folder, backend, f"{s3.url}/runs", environment)
        try:
            yield url
        finally:
            os.killpg(pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def runs(server, tmp_path_factory):
    """Two runs that differ in their seed, and where their folders are."""
    folder = tmp_path_factory.mktemp("runs")
    preset, store = folder / "tiny.yaml", folder / "store"
    preset.write_text(yaml.safe_dump(PRESET))
    build = unigeoseg("data", "build", "--source", "synthetic", "--preset", preset, "--out", store)
    assert build.returncode == 0, build.stderr
    for seed in (0, 1):
        trained = unigeoseg(
            *("train", "--preset", preset, "--store", store, "--run", folder / f"seed{seed}"),
            *("--set", f"seed={seed}"),
            seconds=900,
            MLFLOW_TRACKING_URI=server,
        )
        assert trained.returncode == 0, trained.stderr[-3000:]
    return folder


def test_the_run_page_has_what_a_person_looks_for(server, runs):
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("train")
    found = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert set(found) == {"seed0", "seed1"}
    run = found["seed0"]
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "0" and run.data.params["train.lr"]
    assert {"dataset.fingerprint", "plan.fingerprint", "run.folder"} <= set(run.data.tags)
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [m.step for m in history] == list(range(STEPS))
    assert {"val/reasoning/gIoU", "pts/share/reasoning", "train/loss/mask_bce"} <= set(run.data.metrics)
    files = _files(client, run.info.run_id)
    assert {"config.yaml", "environment.json", "summary.json", "report.html"} <= files
    assert {"evaluation.md", "evaluation.json", "loss.png", "shares.png", "samples-reasoning.png"} <= files
    assert run.info.artifact_uri.startswith("mlflow-artifacts:"), "the server passes artifacts through"
    got = download_artifacts(run_id=run.info.run_id, artifact_path="summary.json", tracking_uri=server)
    assert Path(got).read_bytes() == (runs / "seed0/summary.json").read_bytes()


def test_runs_are_compared_by_the_server_s_names(server, runs, tmp_path):
    out = tmp_path / "compared"
    answer = unigeoseg("compare", "seed0", "seed1", "--out", out, cwd=runs, MLFLOW_TRACKING_URI=server)
    assert answer.returncode == 0, answer.stderr
    assert "seed" in answer.stdout and any(out.glob("*.png"))


def test_the_pages_open(server, runs, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium: the pages were not looked at")
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("train").experiment_id
    one, two = (r.info.run_id for r in client.search_runs([experiment]))
    sheet = next(f for f in sorted(_files(client, one)) if f.endswith(".png") and "reasoning" in f)
    pages = {
        "run": f"/#/experiments/{experiment}/runs/{one}",
        "charts": f"/#/experiments/{experiment}/runs/{one}/model-metrics",
        "comparison": f"/#/compare-runs?runs=[%22{one}%22,%22{two}%22]&experiments=[%22{experiment}%22]",
        "artifact": f"/#/experiments/{experiment}/runs/{one}/artifacts/{sheet}",
    }
    folder = Path(os.environ.get("UNIGEOSEG_PICTURES", tmp_path))
    for name, page in pages.items():
        picture = folder / f"mlflow_{name}.png"
        _photograph(browser, server + page, picture, tmp_path / "profile")
        assert picture.stat().st_size > 10_000, f"the {name} page is empty"


def _photograph(browser: str, url: str, picture: Path, profile: Path) -> None:
    subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--window-size=1500,1000", "--virtual-time-budget=20000", f"--user-data-dir={profile}"),
            *(f"--screenshot={picture}", url),
        ],
        check=True,
        capture_output=True,
        timeout=180,
    )
    deadline = time.monotonic() + 10
    while not picture.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def _files(client: mlflow.MlflowClient, run_id: str, below: str | None = None) -> set[str]:
    found = set()
    for item in client.list_artifacts(run_id, below):
        found |= _files(client, run_id, item.path) if item.is_dir else {item.path}
    return found
