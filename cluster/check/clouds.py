"""What each provider of ``ray up`` needs: images, identities, and tools and credentials on this machine."""

import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from cluster.check.finding import Finding, rows, table

_IMAGE = re.compile(r"ami-[0-9a-f]{8}([0-9a-f]{9})?")
_AWS_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_EXAMPLE_PROJECT = "my-project"
#: Addresses of examples (RFC 5737).
_EXAMPLE_NETS = tuple(ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"))


def check_aws(content: dict[str, Any]) -> Iterator[Finding]:
    """Images, instance profiles, credentials."""
    yield from _importable("boto3", "boto3", "boto3")
    home = Path.home() / ".aws"
    if not any(os.environ.get(name) for name in _AWS_CREDENTIALS) and not any(
        (home / name).is_file() for name in ("credentials", "config")
    ):
        yield Finding(
            "this machine", "no credentials of AWS are set up", "run `aws configure`, or set AWS_PROFILE"
        )
    profiles = {}
    for name, node in _nodes(content):
        where, head = f"available_node_types.{name}.node_config", name == content.get("head_node_type")
        if not _IMAGE.fullmatch(str(node.get("ImageId"))):
            yield _image(where, node.get("ImageId"))
        profile = table(node.get("IamInstanceProfile"))
        profiles[name] = profile.get("Name") or profile.get("Arn")
        if not profiles[name]:
            yield _profile(where, head)
    yield from _shared_identity(content, profiles, "IamInstanceProfile", "start and end machines")
    yield from _ssh_key(content)


def _image(where: str, image: Any) -> Finding:
    without = "no image is named: Ray takes an Ubuntu 18.04, which has no python3.11, and the setup fails"
    return Finding(
        f"{where}.ImageId",
        without if image is None else f"{image} is no id of an image",
        "look it up by its name; the command stands in ray_cluster.yaml",
    )


def _profile(where: str, head: bool) -> Finding:
    outcome = "Ray gives the head all rights on EC2 and S3" if head else "these nodes cannot reach S3"
    name = "unigeoseg-head" if head else "unigeoseg-nodes"
    return Finding(
        f"{where}.IamInstanceProfile",
        f"no instance profile: {outcome}",
        f"make one of cluster/policies (docs/clusters.md) and name it: {{Name: {name}}}",
    )


def check_gcp(content: dict[str, Any]) -> Iterator[Finding]:
    """Project, images, service accounts, credentials, and Google's client here and on the head."""
    yield from _importable("googleapiclient", "google-api-python-client", "-e '.[gcp]'")
    own = Path.home() / ".config" / "gcloud" / "application_default_credentials.json"
    if not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") and not own.is_file():
        yield Finding(
            "this machine",
            "no credentials of Google Cloud are set up",
            "run `gcloud auth application-default login`",
        )
    if table(content.get("provider")).get("project_id") in (None, "", _EXAMPLE_PROJECT):
        yield Finding("provider.project_id", "is still the example's", "name your project")
    commands = [*rows(content.get("setup_commands")), *rows(content.get("head_setup_commands"))]
    if not any("[gcp]" in str(c) or "google-api-python-client" in str(c) for c in commands):
        yield Finding(
            "head_setup_commands",
            "the head gets no client of Google Cloud, its autoscaler fails and no worker ever comes",
            "install the project there with its extra `gcp`, as cluster/gcp_ray_cluster.yaml does",
        )
    emails = {}
    for name, node in _nodes(content):
        yield from _gcp_node(f"available_node_types.{name}.node_config", node)
        account = table(next(iter(rows(node.get("serviceAccounts"))), None))
        emails[name] = account.get("email")
    yield from _shared_identity(content, emails, "serviceAccounts", "start and delete machines")
    yield from _ssh_key(content)


def _gcp_node(where: str, node: dict[str, Any]) -> Iterator[Finding]:
    disks = [table(table(disk).get("initializeParams")) for disk in rows(node.get("disks"))]
    if not any(disk.get("sourceImage") for disk in disks):
        yield Finding(
            f"{where}.disks",
            "no image is named, and no machine starts",
            "set sourceImage, as cluster/gcp_ray_cluster.yaml does",
        )
    account = table(next(iter(rows(node.get("serviceAccounts"))), None))
    if not account.get("email"):
        yield Finding(
            f"{where}.serviceAccounts",
            "no service account: Ray gives the head all rights on machines and storage, and other nodes none",
            "make accounts as docs/clusters.md says and name one: email and scopes",
        )
        return
    if f"@{_EXAMPLE_PROJECT}." in account["email"]:
        yield Finding(f"{where}.serviceAccounts", f"{account['email']} is still the example's", "name yours")
    if _SCOPE not in rows(account.get("scopes")):
        yield Finding(
            f"{where}.serviceAccounts",
            "without the scope cloud-platform the account's roles do not reach the machine",
            f"scopes: [{_SCOPE}]",
        )


def check_own_machines(content: dict[str, Any]) -> Iterator[Finding]:
    """Addresses and the ssh key."""
    provider = table(content.get("provider"))
    for name in ("head_ip", "worker_ips"):
        value = provider.get(name)
        examples = [a for a in (value if isinstance(value, list) else [value]) if _is_example(str(a))]
        if examples:
            what = f"{', '.join(map(str, examples))}: no machine's address, but an example's"
            yield Finding(f"provider.{name}", what, "name your machines")
    yield from _ssh_key(content)


def _is_example(address: str) -> bool:
    try:
        return any(ip_address(address) in net for net in _EXAMPLE_NETS)
    except ValueError:  # a name
        return False


def _nodes(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, group in table(content.get("available_node_types")).items():
        yield name, table(table(group).get("node_config"))


def _shared_identity(
    content: dict[str, Any], identities: dict[str, Any], key: str, rights: str
) -> Iterator[Finding]:
    head = content.get("head_node_type")
    own = identities.get(head) if isinstance(head, str) else None
    same = [name for name, value in identities.items() if name != head and value and value == own]
    if same:
        yield Finding(
            f"available_node_types.{same[0]}.node_config.{key}",
            f"is the head's: code on every node may {rights}",
            "give the nodes an identity of their own",
        )


def _importable(module: str, package: str, install: str) -> Iterator[Finding]:
    if find_spec(module) is None:
        yield Finding(
            "this machine",
            f"{package} is not installed, which Ray's launcher imports",
            f"run `.venv/bin/pip install -c constraints.txt {install}`",
        )


def _ssh_key(content: dict[str, Any]) -> Iterator[Finding]:
    key = table(content.get("auth")).get("ssh_private_key")
    if key and not Path(str(key)).expanduser().is_file():
        yield Finding("auth.ssh_private_key", f"{key} is not here", "make it by `ssh-keygen`, or name yours")
