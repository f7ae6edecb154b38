"""The cluster files, by the schemas of those who read them: Ray, KubeRay, Kubernetes, Docker."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import jsonschema
import pytest
import yaml

from jobs.settings import load_config

ROOT = Path(__file__).parents[3]
KUBERAY = ROOT / "cluster" / "kuberay"
RAY_FILES = ("ray_cluster.yaml", "cluster/gcp_ray_cluster.yaml", "cluster/own_machines.yaml")
SECRETS = ("AWS_SECRET_ACCESS_KEY=", "password:", "BEGIN PRIVATE KEY", "AKIA")


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_accepts_the_file(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / name).read_text()))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]


def test_ray_refuses_a_misspelt_key():
    from ray.autoscaler._private.util import prepare_config, validate_config

    content = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    content["available_node_types"]["cpu"]["max_worker"] = 3
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(content))


@pytest.mark.parametrize("name", RAY_FILES[:2])
def test_groups_are_there_and_bounded_together(name):
    config = yaml.safe_load((ROOT / name).read_text())
    groups = config["available_node_types"]
    assert groups["head"]["resources"] == {"CPU": 0}
    assert groups["gpu_spot"]["resources"] == groups["gpu"]["resources"]
    assert groups["cpu"]["priority"] > groups["gpu_spot"]["priority"] > groups["gpu"]["priority"]
    assert sum(group["max_workers"] for group in groups.values()) >= config["max_workers"]
    assert all(group.get("min_workers", 0) == 0 for group in groups.values())


@pytest.mark.parametrize("preset", ["paper", "deepseek7b"])
def test_a_gpu_node_holds_the_presets_workers(preset):
    scale = load_config(preset).scale
    group = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())["available_node_types"]["gpu"]
    workers = group["max_workers"] * group["resources"]["GPU"] // scale.gpus_per_worker
    assert workers >= scale.workers
    on_a_node = min(scale.workers, group["resources"]["GPU"] // scale.gpus_per_worker)
    assert group["resources"]["CPU"] >= on_a_node * scale.cpus_per_worker


def test_no_secret_stands_in_a_file():
    files = [ROOT / name for name in RAY_FILES] + sorted(KUBERAY.rglob("*.yaml")) + [ROOT / "Dockerfile"]
    text = {path: path.read_text() for path in files}
    assert not [(path.name, mark) for path, content in text.items() for mark in SECRETS if mark in content]


def _rendered(folder):
    if shutil.which("kubectl") is None:
        warnings.warn("kubectl is missing: overlays are not rendered", stacklevel=1)
        pytest.skip("kubectl is missing")
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def schemas(shared):
    """KubeRay's own, by kind and version."""
    found = {}
    for path in (shared / "fixtures" / "kuberay_crds").glob("ray.io_ray*.yaml"):
        # The plain loader needs half a minute for these.
        crd = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["spec"]
        for version in crd["versions"]:
            key = (crd["names"]["kind"], f"{crd['group']}/{version['name']}")
            found[key] = _closed(version["schema"]["openAPIV3Schema"])
    return found


@pytest.mark.parametrize("folder", ["base", "overlays/aws", "overlays/kind", "job", "service"])
def test_kuberay_accepts_what_kustomize_makes(folder, schemas):
    objects = [o for o in _rendered(KUBERAY / folder) if o["apiVersion"].startswith("ray.io")]
    assert objects
    for item in objects:
        validator = jsonschema.Draft7Validator(schemas[(item["kind"], item["apiVersion"])])
        assert not [f"{list(e.path)}: {e.message}" for e in validator.iter_errors(item)]


def _closed(schema):
    """The schema with unknown keys refused, as the API server prunes them silently."""
    if isinstance(schema, dict):
        made = {key: _closed(value) for key, value in schema.items()}
        if "properties" in made and made.get("type") == "object" and made["properties"].keys() != {"name"}:
            made.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
        return made
    return [_closed(item) for item in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("folder", ["overlays/aws", "overlays/kind"])
def test_kubernetes_accepts_the_plain_objects(folder, tmp_path):
    plain = [o for o in _rendered(KUBERAY / folder) if not o["apiVersion"].startswith("ray.io")]
    path = tmp_path / "objects.yaml"
    path.write_text(yaml.safe_dump_all(plain))
    done = subprocess.run(
        [Path(sys.executable).parent / "kubernetes-validate", "--strict", path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = {item["kind"] for item in plain}
    assert {"ServiceAccount", "ConfigMap", "StatefulSet", "Deployment", "Service"} <= kinds


def test_hadolint_accepts_the_dockerfile():
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000"]
