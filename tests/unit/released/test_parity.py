"""Released mode against reference outputs of the released code."""

import json

import pytest
import torch

from unigeoseg.released.verify import fixture_model, verify_set


@pytest.fixture(scope="module")
def reference_model(fixture):
    return fixture_model(fixture)


# The other two sets run through the command, in test_verify_command (slow).
@pytest.mark.parametrize("name", ["interactive_points", "referring", "mixed"])
def test_every_quantity_is_within_tolerance(fixture, reference_model, name):
    rows = verify_set(fixture, reference_model, name)
    assert {key: row for key, row in rows.items() if not row["ok"]} == {}
    compared = {"inputs_embeds", "hidden", "pooled_state", "seg_embedding", "res5", "res2_slice", "mm_tokens"}
    compared |= {
        "mask_logits_all",
        "eval_masks",
        "loss_llm",
        "gradient_norms",
        "prompt_tokens",
        "loss_dice_8",
    }
    assert compared | {"prompt_tokens"} <= set(rows)


def test_a_changed_weight_is_found(fixture, reference_model):
    weight = reference_model.released_tate.gate.bias
    with torch.no_grad():
        weight += 0.1
    try:
        rows = verify_set(fixture, reference_model, "mixed")
    finally:
        with torch.no_grad():
            weight -= 0.1
    wrong = {key for key, row in rows.items() if not row["ok"]}
    assert {"inputs_embeds", "hidden", "mask_logits_all", "gradient_norms"} <= wrong
    assert rows["res5"]["ok"] and rows["ms0"]["ok"]


@pytest.mark.slow
def test_verify_command(shared, run_cli):
    done = run_cli("model", "verify", "--fixture", shared / "fixtures" / "released_256", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] and len(result["sets"]) == 5
    assert set(result["sets"]["reasoning"]["hidden"]) == {"max_abs", "max_rel", "ok"}


def test_no_fixture_is_refused(tmp_path, run_cli):
    done = run_cli("model", "verify", "--fixture", tmp_path)
    assert done.returncode == 2
    assert "state_spec.json is missing" in done.stderr
