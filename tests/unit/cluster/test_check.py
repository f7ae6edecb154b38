"""``unigeoseg cluster check``: shipped files with their gaps, filled ones, and each fault put back alone."""

import json
import shutil
import subprocess
from functools import cache
from importlib.machinery import ModuleSpec

import pytest
import yaml
from click.testing import CliRunner

from cluster.check import clouds
from cluster.errors import InputError
from jobs.cluster_check import check
from tests.train_runs import ROOT

AWS, GCP, OWN = "ray_cluster.yaml", "cluster/gcp_ray_cluster.yaml", "cluster/own_machines.yaml"
EKS, KIND = "cluster/kuberay/overlays/aws", "cluster/kuberay/overlays/kind"
JOB = "cluster/kuberay/job"
#: What a user changes before the first start, by the places marked CHANGE.
FILLED = {
    "ami-CHANGE": "ami-0123456789abcdef0",
    "my-project": "aerial-471102",
    "192.0.2.1": "10.1.2.1",
    "registry.example/": "registry.our.net/",
    "123456789012": "210987654321",
}
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"


@cache
def _text(name):
    if not (ROOT / name).is_dir():
        return (ROOT / name).read_text()
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is missing")
    done = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / name)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A home with all that the files want of a machine; the working folder is the project's."""
    home = tmp_path / "home"
    for name in (".ray/auth_token", ".aws/credentials", ".ssh/id_ed25519",
                 ".config/gcloud/application_default_credentials.json"):  # fmt: skip
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("something")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(ROOT)
    for name in (*clouds._AWS_CREDENTIALS, "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    real = clouds.find_spec
    monkeypatch.setattr(
        clouds, "find_spec",
        lambda name: ModuleSpec(name, None) if name == "googleapiclient" else real(name),
    )  # fmt: skip
    return home


def _call(path, *more):
    return CliRunner().invoke(check, [str(path), *more])


def _found(path):
    """(where, what) of each finding, by the command's JSON; its exit code agrees."""
    done = _call(path, "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == (2 if told["missing"] else 0) and told["ok"] is not bool(told["missing"])
    assert all(one["do"] for one in told["missing"]) and told["not_checked"]
    return [f"{one['where']}: {one['what']}" for one in told["missing"]]


def _filled(name, tmp_path, change=None):
    """A shipped file with the examples' values replaced, and a fault put in."""
    text = _text(name)
    for old, new in FILLED.items():
        text = text.replace(old, new)
    documents = list(yaml.safe_load_all(text))
    if change is not None:
        change(documents[0] if len(documents) == 1 else documents)
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (AWS, ["ami-CHANGE is no id of an image"]),
        (
            GCP,
            ["project_id: is still the example's", "unigeoseg-head@my-project", "unigeoseg-nodes@my-project"],
        ),
        (OWN, ["provider.head_ip: 192.0.2.10", "provider.worker_ips: 192.0.2.11, 192.0.2.12"]),
        (EKS, ["registry.example", "123456789012"]),
        (KIND, ["registry.example"]),
        (JOB, ["registry.example"]),
    ],
)
def test_a_shipped_file_lacks_what_only_its_user_knows(name, says, machine):
    if (ROOT / name).is_dir():
        _text(name)
    found = _found(ROOT / name)
    assert len(found) == len(says)
    assert all(text in told for text, told in zip(says, found, strict=True)), found


@pytest.mark.parametrize("name", [AWS, GCP, OWN, EKS, KIND, JOB])
def test_a_filled_file_lacks_nothing(name, machine, tmp_path):
    assert _found(_filled(name, tmp_path)) == []


def _groups(*names):
    return lambda content: [content["available_node_types"][name]["node_config"] for name in names]


def _without(*keys, groups=("head", "cpu", "gpu_spot", "gpu")):
    def change(content):
        for node in _groups(*groups)(content):
            for key in keys:
                del node[key]

    return change


def _set(place, value):
    """Puts a value at a dotted place; ``None`` takes it away."""

    def change(content):
        *path, last = place.split(".")
        for part in path:
            content = content[part]
        content.pop(last) if value is None else content.update({last: value})

    return change


def _command(part, old, new):
    def change(content):
        commands = content[f"{part}_start_ray_commands"]
        assert old in commands[1]
        commands[1] = commands[1].replace(old, new)

    return change


GUARD = "export RAY_AUTH_MODE=token; "
HEAD = {"email": "unigeoseg-head@aerial-471102.iam.gserviceaccount.com", "scopes": [clouds._SCOPE]}


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (AWS, _without("ImageId"), "no image is named: Ray takes an Ubuntu 18.04, which has no python3.11"),
        (AWS, _without("ImageId", groups=("cpu",)), "node_types.cpu.node_config.ImageId: no image"),
        (AWS, _without("IamInstanceProfile", groups=("cpu",)),
         "cpu.node_config.IamInstanceProfile: no instance profile: these nodes cannot reach S3"),
        (AWS, _without("IamInstanceProfile", groups=("head",)), "Ray gives the head all rights on EC2"),
        (AWS, lambda c: [n.update(IamInstanceProfile={"Name": "unigeoseg-head"}) for n in _groups("gpu")(c)],
         "gpu.node_config.IamInstanceProfile: is the head's"),
        (AWS, _set("auth.ssh_private_key", "~/.ssh/none"), "~/.ssh/none is not here"),
        (GCP, _without("serviceAccounts", groups=("cpu",)), "cpu.node_config.serviceAccounts: no service"),
        (GCP, _without("serviceAccounts", groups=("head",)), "head.node_config.serviceAccounts: no service"),
        (GCP, lambda c: [n.update(serviceAccounts=[HEAD]) for n in _groups("gpu")(c)], "is the head's"),
        (GCP, lambda c: [n["serviceAccounts"][0].pop("scopes") for n in _groups("head")(c)], "the scope"),
        (GCP, lambda c: [n["disks"][0]["initializeParams"].pop("sourceImage") for n in _groups("cpu")(c)],
         "cpu.node_config.disks: no image is named"),
        (GCP, _set("head_setup_commands", None), "head_setup_commands: the head gets no client"),
        (GCP, _set("provider.project_id", "my-project"), "project_id: is still the example's"),
        *((name, _command(part, GUARD, ""), f"{part}_start_ray_commands: Ray runs open")
          for name in (AWS, GCP, OWN) for part in ("head", "worker")),
        *((name, _command("head", GUARD, GUARD.replace("token", "disabled")), "Ray runs open")
          for name in (AWS, GCP, OWN)),
        (AWS, _command("head", GUARD, GUARD + ". ./later.env; "), "Ray runs open"),
        (OWN, _set("worker_start_ray_commands", None), "worker_start_ray_commands: no command starts Ray"),
        *((name, lambda c: c["file_mounts"].pop("/home/ubuntu/.ray/auth_token"), "nodes get no access token")
          for name in (AWS, GCP, OWN)),
        *((name, _set("rsync_filter", [".gitignore"]), "unigeoseg.env") for name in (AWS, GCP, OWN)),
        (AWS, lambda c: c["file_mounts"].update({"/home/ubuntu/x": "./nowhere"}), "./nowhere is not here"),
        (AWS, _set("available_node_types.cpu.max_worker", 3), "the file: Ray refuses it"),
    ],
)  # fmt: skip
def test_each_fault_of_a_file_for_ray_up_is_found_alone(name, change, says, machine, tmp_path):
    (told,) = _found(_filled(name, tmp_path, change))
    assert says in told


@pytest.mark.parametrize("name", [AWS, GCP, OWN])
@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_machine_without_a_token_is_told_how_to_make_one(name, content, machine, tmp_path):
    token = machine / ".ray" / "auth_token"
    token.unlink() if content is None else token.write_text(content)
    done = _call(_filled(name, tmp_path))
    assert done.exit_code == 2
    assert "no access token on this machine" in done.stdout and "ray get-auth-token --generate" in done.stdout


@pytest.mark.parametrize(
    ("name", "gone", "says"),
    [
        (AWS, ".aws/credentials", "no credentials of AWS"),
        (GCP, ".config/gcloud/application_default_credentials.json", "no credentials of Google Cloud"),
        (OWN, ".ssh/id_ed25519", "auth.ssh_private_key"),
    ],
)
def test_a_machine_without_credentials_is_told(name, gone, says, machine, tmp_path):
    (machine / gone).unlink()
    (told,) = _found(_filled(name, tmp_path))
    assert says in told


@pytest.mark.parametrize(("name", "package"), [(AWS, "boto3"), (GCP, "google-api-python-client")])
def test_a_machine_without_the_clouds_client_is_told(name, package, machine, tmp_path, monkeypatch):
    monkeypatch.setattr(clouds, "find_spec", lambda name: None)
    (told,) = _found(_filled(name, tmp_path))
    assert package in told


def _one(objects, kind, name="unigeoseg"):
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def _on(kind, name, act):
    return lambda objects: act(_one(objects, kind, name))


def _drop(kind, name):
    return lambda objects: objects.remove(_one(objects, kind, name))


def _head(cluster):
    return cluster["spec"]["headGroupSpec"]["template"]["spec"]


def _share_a_role(objects):
    account = _one(objects, "ServiceAccount", "mlflow")
    account["metadata"]["annotations"] = _one(objects, "ServiceAccount")["metadata"]["annotations"]


def _pod(owner):
    return owner["spec"]["template"]["spec"]


RAY, DOOR = ("RayCluster", "unigeoseg"), ("NetworkPolicy", "mlflow")
FAULTS = [
    (_on(*RAY, lambda c: c["spec"]["autoscalerOptions"].pop("volumeMounts")), "mounts no token"),
    (_on(*RAY, lambda c: _head(c)["volumes"].pop()), "mounts no token"),
    (_on(*RAY, lambda c: _head(c).update(serviceAccountName="none")), "none is not among the objects"),
    (_drop("RoleBinding", "unigeoseg-autoscaler"), "no Role lets unigeoseg-head get pods, list pods"),
    (_on("Role", "unigeoseg-autoscaler", lambda r: r["rules"].pop()), "patch rayclusters"),
    (_on(*RAY, lambda c: c["spec"]["workerGroupSpecs"][0]["template"]["spec"].update(
        serviceAccountName="unigeoseg-head")), "they run as unigeoseg-head"),
    (_on(*RAY, lambda c: c["spec"].pop("authOptions")), "authOptions: no access token"),
    (_on(*RAY, lambda c: c["spec"].update(authOptions={"mode": "disabled"})), "no access token"),
    (_drop("NetworkPolicy", "default-deny"), "no NetworkPolicy denies by default"),
    (_on("NetworkPolicy", "default-deny", lambda p: p["spec"].update(policyTypes=["Ingress"])),
     "no NetworkPolicy keeps pods in"),
    (_on(*DOOR, lambda p: p["spec"]["egress"].append({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})),
     "mlflow: pods reach the identity of their machine"),
    (_on(*DOOR, lambda p: p["spec"]["egress"].append({"ports": [{"port": 80}]})), "pods reach the identity"),
    (_on(*DOOR, lambda p: p["spec"]["egress"].append({})), "mlflow: pods reach the identity"),
    (_on(*DOOR, lambda p: p["spec"]["ingress"][0].pop("from")), "mlflow: it lets everyone in"),
    (_on(*DOOR, lambda p: p["spec"]["ingress"][0].update({"from": [{"namespaceSelector": {}}]})),
     "mlflow: it lets everyone in"),
    (_on(*DOOR, lambda p: p["spec"]["ingress"][0].update({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})),
     "mlflow: it lets everyone in"),
    (_on("NetworkPolicy", "mlflow-postgres", lambda p: p["spec"].update(ingress=[{}])), "lets everyone in"),
    (_on("Service", "mlflow", lambda s: s["spec"].update(type="LoadBalancer")), "mlflow: type LoadBalancer"),
    (_on("Deployment", "mlflow", lambda d: _pod(d).update(serviceAccountName="unigeoseg")),
     "runs as unigeoseg, with the rights in storage of Ray's pods"),
]  # fmt: skip


@pytest.mark.parametrize("name", [EKS, KIND])
@pytest.mark.parametrize(("change", "says"), FAULTS)
def test_each_fault_of_a_cluster_on_kubernetes_is_found_alone(name, change, says, machine, tmp_path):
    (told,) = _found(_filled(name, tmp_path, change))
    assert says in told


def test_a_job_that_the_network_keeps_from_the_head_is_found(machine, tmp_path):
    def change(job):
        del job["spec"]["submitterPodTemplate"]["metadata"]

    (told,) = _found(_filled(JOB, tmp_path, change))
    assert "keep the pod that submits it from the head" in told


def test_a_role_of_mlflow_that_is_rays_is_found(machine, tmp_path):
    (told,) = _found(_filled(EKS, tmp_path, _share_a_role))
    assert "runs as mlflow, with the rights in storage of Ray's pods" in told


@pytest.mark.parametrize("place", ["account", "pod"])
def test_a_head_whose_account_mounts_its_own_token_will_do(place, machine, tmp_path):
    def change(objects):
        cluster = _one(objects, *RAY)
        del cluster["spec"]["autoscalerOptions"]["volumeMounts"]
        holder = _head(cluster) if place == "pod" else _one(objects, "ServiceAccount", "unigeoseg-head")
        holder["automountServiceAccountToken"] = True

    assert _found(_filled(EKS, tmp_path, change)) == []


def test_the_text_says_what_and_the_way_out(machine):
    done = _call(ROOT / AWS)
    assert done.exit_code == 2
    first, second, *_ = done.stdout.splitlines()
    assert first.startswith("available_node_types.head.node_config.ImageId, available_node_types.cpu")
    assert second.startswith("  -> look it up by its name")
    assert "ray_cluster.yaml (aws): 1 missing" in done.stdout
    assert "not checked from here: " in done.stdout and "docs/clusters.md" in done.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1", "neither a file for `ray up`"),
        ("", "neither a file"),
        ("- 1", "its YAML is no mapping"),
        ("{", "cannot be read"),
        ("provider: {type: azure}", "provider.type azure: checked are aws, gcp, local"),
        ("provider: 3", "provider.type None"),
        ("provider: {type: [1]}", r"provider.type \[1\]"),
    ],
)
def test_what_is_no_cluster_file_is_refused(text, says, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        CliRunner().invoke(check, [str(path)], standalone_mode=False, catch_exceptions=False)


def test_a_folder_that_is_none_and_one_without_kubectl(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"without kustomization\.yaml"):
        CliRunner().invoke(check, [str(tmp_path)], standalone_mode=False, catch_exceptions=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="kubectl is needed"):
        CliRunner().invoke(check, [str(ROOT / EKS)], standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize(
    ("provider", "more", "says"),
    [
        ("aws", {}, "available_node_types: no groups of nodes"),
        ("gcp", {"available_node_types": 3}, "available_node_types: no groups of nodes"),
        ("gcp", {"available_node_types": {"a": 3}}, "the file: Ray refuses it: "),
        ("local", {}, "the file: Ray refuses it: "),
    ],
)
def test_a_file_of_the_wrong_shape_is_told(provider, more, says, machine, tmp_path):
    (tmp_path / "file.yaml").write_text(yaml.safe_dump({"provider": {"type": provider}, **more}))
    (told,) = _found(tmp_path / "file.yaml")
    assert says in told
