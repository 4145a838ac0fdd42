"""What a boundary costs, from the keys that were sent and the parts that were used."""

import pytest

from harness.checks.contract.boundary_cost import KeyCost, boundary_costs
from harness.checks.contract.contract import compare_contract
from harness.checks.finding import Outcome, Severity

KEYS = {"hidden_states": [8], "per_layer_inputs": [10, 16]}


def test_bytes_of_a_token(build):
    """A token carries the elements after the first dimension times the width of the dtype."""
    capture = build(pp=3, keys=KEYS)
    for step in capture.steps(0):
        step["sent"]["hidden_states"]["dtype"] = "bfloat16"
        step["sent"]["per_layer_inputs"]["dtype"] = "float8_e4m3fn"
    costs = boundary_costs(capture.save().stages)
    assert [(cost.boundary, cost.key, cost.bytes_per_token) for cost in costs] == [
        ("0->1", "hidden_states", 8 * 2),
        ("0->1", "per_layer_inputs", 10 * 16),
        ("1->2", "hidden_states", 8 * 4),
        ("1->2", "per_layer_inputs", 10 * 16 * 4),
    ]


def test_share_that_no_later_stage_uses(build):
    """What any stage behind the boundary uses counts as used; the rest is waste, and only told."""
    capture = build(pp=3, keys=KEYS)
    whole = {"hidden_states": [[0, 8]]}
    capture.steps(1)[0]["used"] = {**whole, "per_layer_inputs": [[48, 96]]}
    capture.steps(2)[0]["used"] = {**whole, "per_layer_inputs": [[80, 96], [112, 160]]}
    saved = capture.save()
    unused = {(c.boundary, c.key): c.unused for c in boundary_costs(saved.stages)}
    assert unused == {
        ("0->1", "hidden_states"): 0.0,
        ("0->1", "per_layer_inputs"): pytest.approx(1 - (48 + 48) / 160),
        ("1->2", "hidden_states"): 0.0,
        ("1->2", "per_layer_inputs"): pytest.approx(1 - (16 + 48) / 160),
    }
    verdict = compare_contract(saved)
    assert verdict.outcome is Outcome.PASS
    assert [(f.code, f.boundary, f.key) for f in verdict.findings] == [
        ("CON101", "0->1", "per_layer_inputs"),
        ("CON101", "1->2", "per_layer_inputs"),
    ]


def test_unwatched_use_is_unknown_not_unused(build):
    """A capture whose forward was not watched says nothing about use."""
    costs = boundary_costs(build().save().stages)
    assert costs == (KeyCost(0, "hidden_states", 32, None, read=True),)


def test_a_key_that_is_read_and_thrown_away_is_a_warning(build):
    """Reading is not using: a key of which no later stage uses anything is named, and passes."""
    capture = build()
    capture.steps(1)[0]["used"] = {"hidden_states": []}
    verdict = compare_contract(capture.save())
    assert verdict.outcome is Outcome.PASS
    assert [(f.code, f.severity) for f in verdict.findings] == [("CON014", Severity.WARNING)]
