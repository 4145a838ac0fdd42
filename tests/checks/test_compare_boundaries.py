"""What the report draws of the contract: stages, keys, and what became of each."""

from harness.checks.contract.contract import compare_contract
from harness.checks.finding import Outcome

KEYS = {"hidden_states": [8], "per_layer_inputs": [4, 2]}


def flows(verdict):
    return {
        (one["boundary"], key["key"]): key
        for one in verdict.figures["boundaries"]
        for key in one["keys"]
    }


def test_a_whole_contract(build):
    """Every key of every boundary is there with its form, its bytes and its counts."""
    capture = build(pp=3, keys=KEYS)
    for rank in (1, 2):
        capture.steps(rank)[0]["used"] = {"hidden_states": [[0, 8]], "per_layer_inputs": [[0, 4]]}
    verdict = compare_contract(capture.save())
    assert verdict.figures["stages"] == [
        {"stage": stage, "layers": [2 * stage, 2 * stage + 1]} for stage in range(3)
    ]
    assert [one["steps"] for one in verdict.figures["boundaries"]] == [2, 2]
    assert list(flows(verdict)) == [(b, key) for b in ("0->1", "1->2") for key in KEYS]
    assert flows(verdict)["1->2", "per_layer_inputs"] == {
        "key": "per_layer_inputs",
        "declared": True,
        "sent": 2,
        "copied": 2,
        "read": 2,
        "none": False,
        "shape": (4, 2),
        "dtype": "float32",
        "bytes_per_token": 32,
        "unused": 0.5,
    }


def test_a_dropped_key(build):
    """A key that is sent and never read shows by its counts."""
    capture = build(keys=KEYS)
    for step in capture.steps(1):
        del step["reads"]["per_layer_inputs"]
    verdict = compare_contract(capture.save())
    assert verdict.outcome is Outcome.FAIL
    dropped = flows(verdict)["0->1", "per_layer_inputs"]
    assert (dropped["sent"], dropped["read"]) == (2, 0)


def test_a_key_on_one_side_only(build):
    """A key that is declared and not sent is there too, and one that is sent and not declared."""
    capture = build(keys=KEYS)
    declared = capture.event(1, "declared")["keys"]
    declared["extra"] = declared.pop("per_layer_inputs")
    found = flows(compare_contract(capture.save()))
    assert (found["0->1", "extra"]["declared"], found["0->1", "extra"]["sent"]) == (True, 0)
    assert found["0->1", "extra"]["shape"] == (4, 2)
    assert not found["0->1", "per_layer_inputs"]["declared"]


def test_an_engine_that_died_before_a_step(build):
    """What was declared, and the None that was packed while warming up, is drawn all the same."""
    capture = build()
    for rank in (0, 1):
        capture.forget(rank, "step")
    capture.ranks[0].append({"kind": "dummy", "side": "returned", "keys": {"residual": None}})
    verdict = compare_contract(capture.fail(rank=1).save())
    (boundary,) = verdict.figures["boundaries"]
    assert boundary["steps"] == 0
    assert flows(verdict)["0->1", "residual"]["none"]
    assert flows(verdict)["0->1", "hidden_states"]["declared"]


def test_a_stage_without_a_trace(build):
    """Boundaries beside a silent stage are left out; the verdict is blocked, not an exception."""
    capture = build(pp=3)
    capture.ranks[1] = []
    verdict = compare_contract(capture.save())
    assert verdict.outcome is Outcome.BLOCKED
    assert [one["stage"] for one in verdict.figures["stages"]] == [0, 2]
    assert verdict.figures["boundaries"] == []
