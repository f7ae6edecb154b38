"""``unigeoseg plan --cluster``: groups, prices and warnings, through the command."""

import json

import pytest
import yaml
from click.testing import CliRunner

from jobs.plan import plan
from pipelines.planner.prices import read_prices
from tests.tiny_store import write_store
from tests.train_runs import ROOT, tiny_values
from unigeoseg.errors import UserError


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    folder = tmp_path_factory.mktemp("needs")
    store = write_store(folder / "store")
    values = {"scale.gpus_per_worker": 1, "scale.workers": 4, "train.precision": "bf16"}
    (folder / "p.yaml").write_text(yaml.safe_dump(tiny_values(**values)))

    def run(*more, cluster=ROOT / "ray_cluster.yaml"):
        given = ["--store", store, "--preset", folder / "p.yaml", "--cluster", cluster, *more, "--json"]
        result = CliRunner().invoke(plan, [str(part) for part in given], standalone_mode=False)
        if result.exception:
            raise result.exception
        return json.loads(result.stdout)["needs"]

    return run


@pytest.fixture(scope="module")
def needs(call):
    return call()


def test_the_cheapest_group_that_fits_and_where_its_price_is_from(needs):
    groups = {row["name"]: row for row in needs["groups"]}
    assert groups.keys() == {"gpu", "gpu_spot"} and all(row["fits"] for row in groups.values())
    assert needs["cheapest"] == "gpu_spot"
    assert groups["gpu_spot"]["cost"] < groups["gpu"]["cost"]
    assert needs["prices_of"] == read_prices(None).date and "not from the providers" in needs["prices_source"]
    assert groups["gpu"]["storage"]["requests"] == 8 * 4
    assert needs["checkpoints"]["count"] == 2
    assert any("assumed MFU" in text for text in needs["warnings"])


def test_memory_of_every_stage_is_told(needs):
    rows = needs["memory"]
    assert {(row["stage"], row["offload"]) for row in rows} == {(0, False)} | {
        (stage, offload) for stage in (1, 2, 3) for offload in (False, True)
    }
    assert all(row["device"] >= row["states"] for row in rows)


def test_a_price_table_of_ones_own(call, needs, tmp_path):
    table = yaml.safe_load((ROOT / "pipelines/planner/prices.yaml").read_text())
    table |= {"date": "2026-11-01", "source": "our contract"}
    table["machines"]["p4d.24xlarge"]["hour"] *= 10
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(table))
    theirs = call("--prices", tmp_path / "prices.yaml", "--set", "checkpoint.max_failures=0")
    assert any("max_failures=0" in text for text in theirs["warnings"])
    assert (theirs["prices_of"], theirs["prices_source"]) == ("2026-11-01", "our contract")
    groups = [found["groups"][-1] for found in (theirs, needs)]
    dear, cheap = (group["cost"] - group["storage"]["request_cost"] for group in groups)
    assert dear == pytest.approx(10 * cheap)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("date: x", "source"),
        ("machines: {a: {hour: -1}}", r"machines\.a\.hour|date"),
    ],
)
def test_a_price_table_that_is_none(tmp_path, text, says):
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"--prices .*prices\.yaml: .*({says})"):
        read_prices(tmp_path / "prices.yaml")


def test_a_missing_price_table(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_prices(tmp_path / "none.yaml")


def test_why_a_group_does_not_fit_is_told(call, tmp_path):
    content = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    content["available_node_types"]["gpu"]["max_workers"] = 0
    content["available_node_types"]["gpu_spot"]["resources"]["CPU"] = 1
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    needs = call(cluster=tmp_path / "c.yaml")
    reasons = {row["name"]: row["reasons"] for row in needs["groups"]}
    assert reasons["gpu"] == ["1 nodes needed, max_workers is 0"]
    assert reasons["gpu_spot"] == ["too few CPUs for its workers"]
    assert needs["cheapest"] is None and "no group with a known price fits; see reasons" in needs["warnings"]


def test_a_cluster_file_that_is_none(call, tmp_path):
    (tmp_path / "c.yaml").write_text("a: 1")
    with pytest.raises(UserError, match="no available_node_types"):
        call(cluster=tmp_path / "c.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        call(cluster=tmp_path / "none.yaml")
