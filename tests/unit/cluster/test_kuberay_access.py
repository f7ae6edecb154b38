"""Who may do what and reach whom on Kubernetes, read from what kustomize makes of the shipped files."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

KUBERAY = Path(__file__).parents[3] / "cluster" / "kuberay"
OVERLAYS = ("aws", "kind")
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
HEAD, WORKER = (
    {"ray.io/cluster": "unigeoseg", "ray.io/node-type": kind, "namespace": "unigeoseg"}
    for kind in ("head", "worker")
)
MLFLOW, POSTGRES, S3, SUBMITTER, STRANGER = (
    {"app": name, "namespace": "unigeoseg"}
    for name in ("mlflow", "mlflow-postgres", "s3", "unigeoseg-submitter", "stranger")
)
OPERATOR = {"app.kubernetes.io/component": "kuberay-operator", "namespace": "operators"}
ELSEWHERE = {"namespace": "elsewhere"}


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is missing")
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERAY / "overlays" / request.param)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return list(yaml.safe_load_all(done.stdout))


def _one(objects, kind, name="unigeoseg"):
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def test_the_autoscaler_reads_its_token_where_ray_looks_for_it(objects):
    from ray.autoscaler._private.kuberay import node_provider as ray_s

    assert f"{TOKEN_FOLDER}/token" == ray_s.IN_CLUSTER_TOKEN_PATH
    assert f"{TOKEN_FOLDER}/ca.crt" == ray_s.IN_CLUSTER_CA_CERT_PATH
    spec = _one(objects, "RayCluster")["spec"]
    (mount,) = spec["autoscalerOptions"]["volumeMounts"]
    pod = spec["headGroupSpec"]["template"]["spec"]
    (volume,) = [v for v in pod["volumes"] if v["name"] == mount["name"]]
    paths = {
        s["serviceAccountToken"]["path"] for s in volume["projected"]["sources"] if "serviceAccountToken" in s
    }
    paths |= {
        item["path"]
        for source in volume["projected"]["sources"]
        for item in source.get("configMap", {}).get("items", [])
    }
    assert mount["mountPath"] == TOKEN_FOLDER and paths == {"token", "ca.crt"}
    # Whoever runs code as a job on the head gets no token.
    assert mount["name"] not in {m["name"] for m in pod["containers"][0]["volumeMounts"]}
    assert pod["serviceAccountName"] == "unigeoseg-head"


def test_only_the_heads_account_may_what_the_autoscaler_calls(objects):
    role = _one(objects, "Role", "unigeoseg-autoscaler")
    allowed = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # ray/autoscaler/v2/instance_manager/cloud_providers/kuberay: GET pods, GET and PATCH rayclusters/NAME.
    assert {("", "pods", "get"), ("", "pods", "list"), ("ray.io", "rayclusters", "get")} <= allowed
    assert ("ray.io", "rayclusters", "patch") in allowed
    assert not {verb for _, _, verb in allowed} & {"*", "create", "delete", "update"}
    binding = _one(objects, "RoleBinding", "unigeoseg-autoscaler")
    subject = {"kind": "ServiceAccount", "name": "unigeoseg-head", "namespace": "unigeoseg"}
    assert binding["subjects"] == [subject] and binding["roleRef"]["name"] == role["metadata"]["name"]
    accounts = [o for o in objects if o["kind"] == "ServiceAccount"]
    assert {a["metadata"]["name"] for a in accounts} == {"unigeoseg", "unigeoseg-head", "mlflow"}
    assert all(a["automountServiceAccountToken"] is False for a in accounts)


def test_mlflow_has_an_identity_of_its_own(objects):
    pod = _one(objects, "Deployment", "mlflow")["spec"]["template"]["spec"]
    groups = _one(objects, "RayCluster")["spec"]["workerGroupSpecs"]
    assert pod["serviceAccountName"] == "mlflow"
    assert {g["template"]["spec"]["serviceAccountName"] for g in groups} == {"unigeoseg"}
    secrets = [e["secretRef"]["name"] for e in pod["containers"][0]["envFrom"] if "secretRef" in e]
    assert secrets == ["mlflow-storage"]
    roles = {
        o["metadata"]["name"]: o["metadata"].get("annotations", {}).get("eks.amazonaws.com/role-arn")
        for o in objects
        if o["kind"] == "ServiceAccount"
    }
    if roles["mlflow"]:
        assert roles["mlflow"] != roles["unigeoseg"] == roles["unigeoseg-head"]


def _selects(selector, labels):
    return selector is not None and all(
        labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()
    )


def _names(peer, labels):
    if "ipBlock" in peer:
        return False
    spaces, own = peer.get("namespaceSelector"), labels["namespace"]
    if spaces is None:
        placed = own == "unigeoseg"
    else:
        placed = spaces.get("matchLabels", {}).get("kubernetes.io/metadata.name", own) == own
    return placed and _selects(peer.get("podSelector", {}), labels)


def _lets(objects, direction, pod, other, port):
    """Whether a pod's own rules of one direction let a connection pass; without any policy all pass."""
    side = {"Ingress": "from", "Egress": "to"}[direction]
    if pod["namespace"] != "unigeoseg":
        return True
    mine = [
        o["spec"]
        for o in objects
        if o["kind"] == "NetworkPolicy" and direction in o["spec"]["policyTypes"]
        if _selects(o["spec"]["podSelector"], pod)
    ]
    rules = [rule for spec in mine for rule in spec.get(direction.lower(), [])]
    return not mine or any(
        ("ports" not in rule or port in [p["port"] for p in rule["ports"]])
        and (side not in rule or any(_names(peer, other) for peer in rule[side]))
        for rule in rules
    )


def _reaches(objects, pod, other, port):
    return _lets(objects, "Egress", pod, other, port) and _lets(objects, "Ingress", other, pod, port)


@pytest.mark.parametrize(
    ("pod", "other", "port"),
    [
        (HEAD, WORKER, 10002), (WORKER, HEAD, 6379), (WORKER, WORKER, 29500),
        (HEAD, MLFLOW, 5000), (WORKER, MLFLOW, 5000), (MLFLOW, POSTGRES, 5432),
        (SUBMITTER, HEAD, 8265), (OPERATOR, HEAD, 8265),
    ],
)  # fmt: skip
def test_those_named_reach_one_another(objects, pod, other, port):
    assert _reaches(objects, pod, other, port)


@pytest.mark.parametrize(
    ("pod", "other", "port"),
    [
        (ELSEWHERE, HEAD, 8265), (ELSEWHERE, HEAD, 6379), (STRANGER, HEAD, 8265), (STRANGER, WORKER, 10002),
        (ELSEWHERE, MLFLOW, 5000), (STRANGER, MLFLOW, 5000), (SUBMITTER, MLFLOW, 5000),
        (ELSEWHERE, POSTGRES, 5432), (HEAD, POSTGRES, 5432), (WORKER, POSTGRES, 5432), (MLFLOW, HEAD, 6379),
        (OPERATOR, HEAD, 6379), (ELSEWHERE, S3, 9000), (STRANGER, S3, 9000),
    ],
)  # fmt: skip
def test_nobody_else_reaches_them(objects, pod, other, port):
    assert not _reaches(objects, pod, other, port)


def test_pods_go_out_to_storage_and_not_to_the_nodes_identity(objects):
    blocks = [
        (peer["ipBlock"], {p["port"] for p in rule["ports"]})
        for o in objects
        if o["kind"] == "NetworkPolicy"
        for rule in o["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    assert blocks
    assert all(block["except"] == ["169.254.0.0/16"] and ports <= {443, 6443} for block, ports in blocks)


def test_the_store_in_the_cluster_is_reached_by_those_who_read_it(objects):
    served = any(o["metadata"]["name"] == "s3" for o in objects)  # in kind; on EKS the store is outside
    assert [_reaches(objects, pod, S3, 9000) for pod in (HEAD, WORKER, MLFLOW)] == [served] * 3


def test_the_pod_that_submits_a_job_has_the_label_that_the_rules_name():
    job = yaml.safe_load((KUBERAY / "job" / "rayjob.yaml").read_text())
    assert job["spec"]["submitterPodTemplate"]["metadata"]["labels"]["app"] == SUBMITTER["app"]
