"""Replicas as they are started: by the command, and by the manifest of a cluster."""

import io
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
import requests
import yaml
from click.testing import CliRunner
from PIL import Image

from cluster.local.processes import free_ports
from jobs.cli import cli
from jobs.serve_application import Args, build
from pipelines.evaluate.predict import predict_file
from tests.geotiffs import scene
from tests.serve_process import start
from tests.tiny_export import write_export
from unigeoseg.errors import UserError
from unigeoseg.question import Question

serve = pytest.importorskip("ray.serve")
pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
_held = io.BytesIO()
Image.fromarray(np.moveaxis(scene(80, 120), 0, -1)).save(_held, "png")
PNG = _held.getvalue()


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return str(write_export(tmp_path_factory.mktemp("replicas") / "export", 64, threshold=0.42))


@pytest.mark.slow
def test_the_manifests_application(export, monkeypatch):
    """What the RayService deploys, as Serve reads it: the front behind Serve's own proxy."""
    service = yaml.safe_load((ROOT / "cluster/kuberay/service/rayservice.yaml").read_text())
    (told,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert told["import_path"] == "jobs.serve_application:build"
    monkeypatch.delenv("UNIGEOSEG_TOKEN", raising=False)
    args = {**told["args"], "model": export, "fewest": 1, "most": 1, "cpus": 0.5, "gpus": 0}
    with pytest.raises(UserError, match="UNIGEOSEG_TOKEN"):
        build(Args(**args))
    monkeypatch.setenv("UNIGEOSEG_TOKEN", "a token of the test")
    (port,) = free_ports(1)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(build(Args(**args)), name=told["name"], route_prefix=told["route_prefix"])
        url, header = f"http://127.0.0.1:{port}", {"authorization": "Bearer a token of the test"}
        assert requests.get(f"{url}/readyz", timeout=60).status_code == 200
        assert requests.put(f"{url}/v1/images", data=PNG, timeout=60).status_code == 401
        known = requests.put(f"{url}/v1/images", data=PNG, headers=header, timeout=60).json()
        body = {"image": known["image"], "text": "the block"}
        answer = requests.post(f"{url}/v1/segment", json=body, headers=header, timeout=60)
        assert answer.status_code == 200 and answer.json()["threshold"] == 0.42
    finally:
        serve.shutdown()
        ray.shutdown()


def test_the_command(export, tmp_path):
    (tmp_path / "x.png").write_bytes(PNG)
    process, url = start(
        "serve", "--model", export, "--replicas", "1-2", "--no-page", "--cpus-per-replica", "0.5"
    )
    try:
        below = psutil.Process(process.pid).children(recursive=True)
        known = requests.put(f"{url}v1/images", data=(tmp_path / "x.png").read_bytes(), timeout=60).json()
        body = {"image": known["image"], "points": [[60, 40]]}
        found = requests.post(f"{url}v1/segment", json=body, timeout=120).json()
        told = predict_file(export, tmp_path / "x.png", Question.ask(points=[(0.5, 0.5)]), tmp_path / "out")
        assert found["mask"] == told["mask"] and found["score"] == told["score"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        _, alive = psutil.wait_procs(below, timeout=30)
        assert not alive
    finally:
        process.kill()
        process.wait()
    refused = run_refused("--replicas", "2-1"), run_refused("--replicas", "64")
    assert "the smaller first" in refused[0] and "64 CPUs" in refused[1]


def run_refused(*arguments):
    called = CliRunner().invoke(cli, ["serve", "--model", "x", "--no-page", *arguments])
    assert called.exit_code == 2 or isinstance(called.exception, UserError)
    return called.output + str(called.exception)
