"""The files for `ray up` by what Ray's own launchers make of them, their commands as a shell runs them."""

import fnmatch
import json
import os
import subprocess
from pathlib import Path

import boto3
import pytest
import yaml
from moto import mock_aws

ROOT = Path(__file__).parents[3]
RAY_FILES = ("ray_cluster.yaml", "cluster/gcp_ray_cluster.yaml", "cluster/own_machines.yaml")
POLICIES = ROOT / "cluster" / "policies"


def _content(name):
    return yaml.safe_load((ROOT / name).read_text())


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    """An account at AWS, pretended by moto, with the two profiles of the checklist."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes a key there
    with mock_aws():
        iam = boto3.client("iam", "us-west-2")
        for name in ("unigeoseg-head", "unigeoseg-nodes"):
            iam.create_instance_profile(InstanceProfileName=name)
        yield iam


@pytest.fixture
def bootstrapped(cloud):
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.util import prepare_config

    content = _content("ray_cluster.yaml")
    image = boto3.client("ec2", "us-west-2").describe_images()["Images"][0]["ImageId"]
    for group in content["available_node_types"].values():
        assert group["node_config"]["ImageId"] == "ami-CHANGE"
        group["node_config"]["ImageId"] = image
    return bootstrap_aws(prepare_config(content)), image


def test_ray_takes_image_and_profiles_from_the_file(bootstrapped, cloud):
    config, image = bootstrapped
    given = {
        name: (group["node_config"]["ImageId"], group["node_config"]["IamInstanceProfile"]["Name"])
        for name, group in config["available_node_types"].items()
    }
    nodes = (image, "unigeoseg-nodes")
    assert given == {"head": (image, "unigeoseg-head"), "cpu": nodes, "gpu_spot": nodes, "gpu": nodes}
    assert config["head_node"] == {} and cloud.list_roles()["Roles"] == []  # no role with all rights was made


def test_without_them_ray_takes_an_old_image_and_gives_the_head_all_rights(cloud):
    """What the shipped lines are there against."""
    from ray.autoscaler._private.aws import config as ray_s
    from ray.autoscaler._private.util import prepare_config

    content = prepare_config(_content("ray_cluster.yaml"))
    for group in content["available_node_types"].values():
        del group["node_config"]["ImageId"], group["node_config"]["IamInstanceProfile"]
    ray_s._check_ami(content)
    assert content["available_node_types"]["cpu"]["node_config"]["ImageId"] == ray_s.DEFAULT_AMI["us-west-2"]
    assert "18.04" in ray_s.DEFAULT_AMI_NAME


def _allowed(action, policy):
    return any(
        fnmatch.fnmatch(action, pattern)
        for statement in policy["Statement"]
        for pattern in [statement["Action"]] * isinstance(statement["Action"], str) or statement["Action"]
    )


def test_the_heads_policy_allows_what_rays_autoscaler_calls(bootstrapped):
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config, _ = bootstrapped
    called, started = set(), []
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for resource in (provider.ec2, provider.ec2_fail_fast):
        resource.meta.client.meta.events.register(
            "before-call.ec2", lambda model, **_: called.add(f"ec2:{model.name}")
        )
        resource.meta.client.meta.events.register(
            "provide-client-params.ec2.RunInstances", lambda params, **_: started.append(params)
        )
    node = config["available_node_types"]["cpu"]["node_config"]
    node.pop("InstanceMarketOptions")  # moto's spot requests do not make instances at once
    made = provider.create_node_with_resources_and_labels(node, {"ray-node-type": "worker"}, 1, {}, {})
    (name,) = made or provider.non_terminated_nodes({})
    provider.non_terminated_nodes({})
    provider.set_node_tags(name, {"ray-node-status": "up-to-date"})
    provider.internal_ip(name)
    provider.terminate_node(name)
    assert {"ec2:DescribeInstances", "ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances"} <= called
    policy = json.loads((POLICIES / "aws_head.json").read_text())
    # What the conditions of the policy ask for.
    (tags,) = [spec["Tags"] for spec in started[0]["TagSpecifications"] if spec["ResourceType"] == "instance"]
    assert {"Key": "ray-cluster-name", "Value": "unigeoseg"} in tags
    conditions = json.dumps([statement.get("Condition", {}) for statement in policy["Statement"]])
    assert '"aws:RequestTag/ray-cluster-name": "unigeoseg"' in conditions
    assert not [action for action in called if not _allowed(action, policy)]
    assert _allowed("iam:PassRole", policy)


@pytest.mark.parametrize("name", sorted(path.name for path in POLICIES.glob("aws_*.json")))
def test_a_policy_grants_nothing_wholesale(name):
    policy = json.loads((POLICIES / name).read_text())
    for statement in policy["Statement"]:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert "*" not in action
            assert statement.get("Resource") != "*" or action.startswith("ec2:Describe")


def test_google_cloud_nodes_have_accounts_and_the_heads_is_its_own():
    groups = _content("cluster/gcp_ray_cluster.yaml")["available_node_types"]
    accounts = {name: group["node_config"]["serviceAccounts"][0]["email"] for name, group in groups.items()}
    assert len({accounts[name] for name in ("cpu", "gpu_spot", "gpu")}) == 1
    assert accounts["head"] != accounts["cpu"]


@pytest.mark.parametrize("name", RAY_FILES)
def test_what_is_carried_to_nodes_includes_the_endpoints(name):
    """`rsync_filter: [.gitignore]` would keep unigeoseg.env back, which git ignores."""
    content = _content(name)
    assert "/unigeoseg.env" in (ROOT / ".gitignore").read_text().splitlines()
    assert ".gitignore" not in content.get("rsync_filter", [])
    excluded = [pattern.strip("/") for pattern in content["rsync_exclude"]]
    assert not [p for p in excluded if fnmatch.fnmatch("unigeoseg.env", p)]
    large = (".venv", "runs", "stores", ".git", "build", "dist", ".mypy_cache", "__pycache__")
    assert [one for one in large if not any(fnmatch.fnmatch(one, p) for p in excluded)] == []


@pytest.fixture(params=[(name, part) for name in RAY_FILES for part in ("head", "worker")])
def start(request, tmp_path):
    """Runs a start command in a folder as home, with a stand-in for ray that tells of its mode."""
    name, part = request.param
    command = _content(name)[f"{part}_start_ray_commands"][1].replace("/home/ubuntu", str(tmp_path))
    programs = tmp_path / "unigeoseg" / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "ray").write_text('#!/bin/sh\necho "ray $1 mode=$RAY_AUTH_MODE region=$AWS_REGION"\n')
    (programs / "ray").chmod(0o755)

    def run():
        return subprocess.run(
            ["bash", "-c", command],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "RAY_HEAD_IP": "192.0.2.1"},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    return run, tmp_path


def test_a_node_without_a_token_does_not_start(start):
    run, _ = start
    done = run()
    assert done.returncode == 1 and done.stdout == "" and "no access token" in done.stderr


@pytest.mark.parametrize("environment", [None, "RAY_AUTH_MODE=disabled\nAWS_REGION=us-east-1\n"])
def test_nothing_turns_the_token_off(start, environment):
    run, home = start
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("t" * 32)
    if environment:
        (home / "unigeoseg" / "unigeoseg.env").write_text(environment)
    region = "us-east-1" if environment else ""
    assert run().stdout == f"ray start mode=token region={region}\n"


def test_the_checklist_names_every_policy():
    text = (ROOT / "docs" / "clusters.md").read_text()
    assert [path.name for path in POLICIES.iterdir() if path.name not in text] == []
