"""Objects for Kubernetes: whether workers can come, who may do what, and who reaches whom."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from cluster.check.finding import Finding, Report, rows, table

TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
#: By this label the network's rules know a pod that submits a job.
SUBMITTER = "unigeoseg-submitter"
#: Where a cloud's machine tells its credentials.
_MACHINE, _MACHINE_PORT = ip_address("169.254.169.254"), 80
#: What Ray's autoscaler calls (ray/autoscaler/v2/instance_manager/cloud_providers/kuberay).
NEEDED = (
    ("", "pods", "get"),
    ("", "pods", "list"),
    ("ray.io", "rayclusters", "get"),
    ("ray.io", "rayclusters", "patch"),
)
_EXAMPLES = {"registry.example/": "an image", "123456789012": "an account of AWS"}
_NOT_CHECKED = (
    "that the operator of KubeRay runs, 1.5 or newer, and the network heeds policies",
    "that the Secret mlflow-postgres, the roles and the buckets exist, and the image was pushed",
)
Objects = list[dict[str, Any]]


def check_objects(objects: Objects, name: str) -> Report:
    """What the objects of a cluster, or of a job on one, lack."""
    found = [*_examples(objects)]
    clusters = [one for one in objects if one["kind"] == "RayCluster"]
    for one in clusters:
        spec = table(one.get("spec"))
        where = f"RayCluster {_name(one)}"
        if table(spec.get("authOptions")).get("mode") != "token":
            found.append(
                Finding(f"{where}: authOptions", "no access token: who reaches the head runs code on it",
                        "authOptions: {mode: token}")
            )  # fmt: skip
        if spec.get("enableInTreeAutoscaling"):
            found += _autoscaler(spec, objects, where)
    if clusters:
        found += [*_mlflow(objects, clusters), *_network(objects, name)]
    found += _submitters(objects)
    return Report("kubernetes", tuple(found), _NOT_CHECKED)


def _name(one: dict[str, Any]) -> str:
    return str(table(one.get("metadata")).get("name"))


def _named(objects: Objects, kind: str, name: str) -> dict[str, Any] | None:
    return next((one for one in objects if one["kind"] == kind and _name(one) == name), None)


def _pod(owner: Any) -> dict[str, Any]:
    """The pod's spec in whatever has a template."""
    return table(table(table(owner).get("template")).get("spec"))


def _autoscaler(spec: dict[str, Any], objects: Objects, where: str) -> Iterator[Finding]:
    pod = _pod(spec.get("headGroupSpec"))
    account = pod.get("serviceAccountName")
    if account is None:
        return  # KubeRay makes an account and its role
    given = _named(objects, "ServiceAccount", account)
    if given is None:
        yield Finding(
            f"{where}: head",
            f"its account {account} is not among the objects, and KubeRay makes none in its place",
            "add it, or check the whole folder (an overlay) instead of one file",
        )
        return
    if not _automounted(pod, given) and not _mounted(spec, pod):
        yield Finding(
            f"{where}: head",
            f"its account {account} mounts no token: the autoscaler's container fails, no worker ever comes",
            f"mount a projected token at {TOKEN_FOLDER} by autoscalerOptions.volumeMounts, or let the head's "
            "account mount its own",
        )
    missing = [need for need in NEEDED if need not in _allowed(objects, account)]
    if missing:
        verbs = ", ".join(f"{verb} {resource}" for _, resource, verb in missing)
        yield Finding(
            f"{where}: head",
            f"no Role lets {account} {verbs}, which the autoscaler calls",
            "bind it to a Role as in cluster/kuberay/base/accounts.yaml",
        )
    workers = {_pod(group).get("serviceAccountName") for group in rows(spec.get("workerGroupSpecs"))}
    if account in workers:
        yield Finding(
            f"{where}: workers",
            f"they run as {account}, which may change the cluster",
            "give the head an account of its own",
        )


def _automounted(pod: dict[str, Any], account: dict[str, Any]) -> bool:
    own = pod.get("automountServiceAccountToken")
    return bool(account.get("automountServiceAccountToken", True) if own is None else own)


def _mounted(spec: dict[str, Any], pod: dict[str, Any]) -> bool:
    """Whether the autoscaler's container has a projected token where Ray reads it."""
    names = {
        table(mount).get("name")
        for mount in rows(table(spec.get("autoscalerOptions")).get("volumeMounts"))
        if table(mount).get("mountPath") == TOKEN_FOLDER
    }
    return any(
        table(source).get("serviceAccountToken")
        for volume in rows(pod.get("volumes"))
        if table(volume).get("name") in names
        for source in rows(table(table(volume).get("projected")).get("sources"))
    )


def _allowed(objects: Objects, account: str) -> set[tuple[str, str, str]]:
    """(group, resource, verb) that the Roles bound to an account grant."""
    roles = [
        _named(objects, "Role", str(table(one.get("roleRef")).get("name")))
        for one in objects
        if one["kind"] == "RoleBinding"
        and any(
            table(s).get("kind") == "ServiceAccount" and table(s).get("name") == account
            for s in rows(one.get("subjects"))
        )
    ]
    return {
        (group, resource, verb)
        for role in roles
        if role is not None
        for rule in rows(role.get("rules"))
        for group in rows(table(rule).get("apiGroups"))
        for resource in rows(table(rule).get("resources"))
        for verb in rows(table(rule).get("verbs"))
    }


def _mlflow(objects: Objects, clusters: Objects) -> Iterator[Finding]:
    server = _named(objects, "Deployment", "mlflow")
    if server is None:
        return
    account = _pod(server.get("spec")).get("serviceAccountName") or "default"
    used = set()
    for one in clusters:
        spec = table(one.get("spec"))
        groups = [spec.get("headGroupSpec"), *rows(spec.get("workerGroupSpecs"))]
        used |= {_pod(group).get("serviceAccountName") or "default" for group in groups}
    roles = {
        _name(one): set(table(table(one.get("metadata")).get("annotations")).items())
        for one in objects
        if one["kind"] == "ServiceAccount"
    }
    shared = any(roles.get(account, set()) & roles.get(name, set()) for name in used - {account})
    if account in used or shared:
        yield Finding(
            "Deployment mlflow",
            f"it asks nobody for a password and runs as {account}, with the rights in storage of Ray's pods",
            "give it an account and a role of its own (cluster/policies/aws_mlflow.json)",
        )


def _submitters(objects: Objects) -> Iterator[Finding]:
    for one in objects:
        spec = table(one.get("spec"))
        if one["kind"] != "RayJob" or not spec.get("clusterSelector"):
            continue
        template = table(spec.get("submitterPodTemplate"))
        labels = table(table(template.get("metadata")).get("labels"))
        if spec.get("submissionMode", "K8sJobMode") == "K8sJobMode" and labels.get("app") != SUBMITTER:
            yield Finding(
                f"RayJob {_name(one)}",
                "the network's rules keep the pod that submits it from the head",
                f"submitterPodTemplate.metadata.labels: {{app: {SUBMITTER}}}",
            )


def _network(objects: Objects, name: str) -> Iterator[Finding]:
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    if not any(_denies_all(table(one.get("spec")), "Ingress") for one in policies):
        yield Finding(
            name,
            "no NetworkPolicy denies by default: every pod reaches Ray's ports, MLflow and its database",
            "take cluster/kuberay/base/network.yaml in, which lets in by name",
        )
    elif not any(_denies_all(table(one.get("spec")), "Egress") for one in policies):
        yield Finding(
            name,
            "no NetworkPolicy keeps pods in: they reach the identity of their machine, and its rights",
            "deny Egress by default, as cluster/kuberay/base/network.yaml does",
        )
    for one in policies:
        egress = rows(table(one.get("spec")).get("egress"))
        if any(_reaches_machine(table(rule)) for rule in egress):
            yield Finding(
                f"NetworkPolicy {_name(one)}",
                f"pods reach the identity of their machine ({_MACHINE}), and its rights",
                "ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}",
            )
    for one in policies:
        ingress = rows(table(one.get("spec")).get("ingress"))
        if any(_open(table(rule)) for rule in ingress):
            yield Finding(
                f"NetworkPolicy {_name(one)}", "it lets everyone in", "name the pods that may, by `from`"
            )
    for one in objects:
        kind = table(one.get("spec")).get("type")
        if one["kind"] == "Service" and kind in ("LoadBalancer", "NodePort"):
            yield Finding(
                f"Service {_name(one)}",
                f"type {kind} opens it outside the cluster, and it asks nobody for a password",
                "leave the type out and use `kubectl port-forward`",
            )


def _reaches_machine(rule: dict[str, Any]) -> bool:
    ports = [table(port).get("port") for port in rows(rule.get("ports"))]
    if ports and _MACHINE_PORT not in ports:
        return False
    peers = rows(rule.get("to"))
    return not peers or any(_holds_machine(table(table(peer).get("ipBlock"))) for peer in peers)


def _holds_machine(block: dict[str, Any]) -> bool:
    try:
        inside = _MACHINE in ip_network(str(block.get("cidr")))
        return inside and not any(_MACHINE in ip_network(str(net)) for net in rows(block.get("except")))
    except ValueError:  # no block of addresses
        return False


def _denies_all(spec: dict[str, Any], direction: str) -> bool:
    rules = rows(spec.get(direction.lower()))
    return not spec.get("podSelector") and direction in rows(spec.get("policyTypes")) and not rules


def _open(rule: dict[str, Any]) -> bool:
    peers = [table(peer) for peer in rows(rule.get("from"))]
    return not peers or any(
        table(peer.get("ipBlock")).get("cidr") in ("0.0.0.0/0", "::/0")
        or ("namespaceSelector" in peer and not peer["namespaceSelector"] and not peer.get("podSelector"))
        for peer in peers
    )


def _examples(objects: Objects) -> Iterator[Finding]:
    """Values that were left as they were shipped, once each."""
    for text, what in _EXAMPLES.items():
        holders = [f"{one['kind']} {_name(one)}" for one in objects if text in str(one)]
        if holders:
            yield Finding(
                ", ".join(holders),
                f"{text.rstrip('/')} is still the example's: {what} that is nobody's",
                "change what is marked CHANGE in the kustomization.yaml files",
            )
