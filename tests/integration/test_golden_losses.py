"""The quickstart preset learns as it did: its first losses against those that are kept."""

import json

import pytest

from tests.golden_losses import GOLDEN, STEPS, this_platform

pytestmark = pytest.mark.integration
#: Where the kept losses were made, and elsewhere: other vector widths and libraries add up in another order.
SAME, ELSEWHERE = 1e-6, 0.02
REMEDY = "if the change is meant: python -m tests.golden_losses, and say why in the commit"


def test_the_first_losses_of_the_quickstart(run_module, tmp_path):
    kept = json.loads(GOLDEN.read_text())
    done = run_module("tests.golden_losses", tmp_path / "now.json")
    assert done.returncode == 0, done.stderr
    now = json.loads((tmp_path / "now.json").read_text())
    near = SAME if kept["platform"] == this_platform() else ELSEWHERE
    assert len(kept["losses"]) == STEPS and len(set(kept["losses"])) == STEPS
    assert now["losses"] == pytest.approx(kept["losses"], rel=near), REMEDY
    assert now["grad_norms"] == pytest.approx(kept["grad_norms"], rel=10 * near), REMEDY
    for here, there in zip(now["task_losses"], kept["task_losses"], strict=True):
        assert here == pytest.approx(there, rel=near), REMEDY
