"""One check of one point: what stands in its way, and what speaks all the same."""

import dataclasses

import pytest

from harness.capture.devices import DevicePool
from harness.checks.finding import Outcome, blocked_by
from harness.checks.judge import judge
from harness.checks.refusals import judge_devices, judge_partition
from harness.checks.registry import Comparison, check_names
from harness.models.partition import plan_partition
from harness.plan.cell import Load
from harness.plan.cost import expected_bytes


@pytest.mark.parametrize("check", check_names())
def test_equal_captures_pass_every_check(build, check):
    """Two whole captures that agree pass each check."""
    assert judge(check, Comparison(build(pp=1).save(), build(pp=2).save())).outcome is Outcome.PASS


@pytest.mark.parametrize("check", ["logits", "accuracy"])
@pytest.mark.parametrize(("side", "code"), [(0, "ENG004"), (1, "ENG001")])
def test_answers_need_both_engines(build, check, side, code):
    """A failed engine on either side blocks logits and accuracy, by its own finding."""
    sides = [build(pp=1), build(pp=2)]
    sides[side].fail()
    verdict = judge(check, Comparison(*(one.save() for one in sides)))
    assert verdict.outcome is Outcome.BLOCKED
    assert verdict.findings == ()
    assert verdict.summary.startswith(f"blocked by {code}: ")


def test_contract_needs_no_baseline(build):
    """A boundary is judged by itself: a broken PP=1 takes nothing from it."""
    verdict = judge("contract", Comparison(build(pp=1).fail().save(), build(pp=2).save()))
    assert verdict.outcome is Outcome.PASS


def test_contract_of_a_failed_engine_is_blocked_by_it(build):
    """A crash without a traced cause blocks the contract and says what crashed."""
    candidate = build(pp=2).fail(error="ValueError: no room")
    verdict = judge("contract", Comparison(build(pp=1).save(), candidate.save()))
    assert verdict.outcome is Outcome.BLOCKED
    assert "ENG001" in verdict.summary
    assert "no room" in verdict.summary


def test_contract_of_a_failed_engine_speaks_if_it_can(build):
    """A traced cause is a contract failure even though the engine died of it."""
    candidate = build(pp=2).fail()
    candidate.ranks[1].append(
        {"kind": "misuse", "what": "missing-attribute", "key": "get", "place": "vllm/m.py:7"}
    )
    verdict = judge("contract", Comparison(build(pp=1).save(), candidate.save()))
    assert [finding.code for finding in verdict.findings] == ["CON005"]


@pytest.mark.parametrize(
    ("kind", "tp", "needed"), [("cpu", 2, None), ("cuda", 2, 4), ("cpu", 3, 3)]
)
def test_too_few_devices_block(cell, kind, tp, needed):
    """DEV001: a size that the host has no devices for is blocked, with how many it takes."""
    asked = dataclasses.replace(cell, device=kind, tp=tp)
    verdict = judge_devices(DevicePool(kind, (0, 1)), asked)
    if needed is None:
        assert verdict is None
    else:
        assert verdict.outcome is Outcome.BLOCKED
        assert f"PP=2 x TP={tp} needs {needed} {kind} devices, 2 can be used" in verdict.summary


def test_too_little_memory_blocks(cell):
    """DEV001: a model that the memory of a CPU host cannot hold is blocked, with what it takes."""
    heavy = dataclasses.replace(cell, load=Load(weight_bytes=100 * 2**30))
    verdict = judge_devices(DevicePool("cpu", (0, 1), memory=8 * 2**30), heavy)
    assert verdict.outcome is Outcome.BLOCKED
    needed = f"{expected_bytes(heavy) / 2**30:.0f}"
    assert f"PP=2 needs about {needed} GiB of memory, 16 GiB can be used" in verdict.summary


def test_unknown_check_is_a_bug(build):
    """A check that does not exist never passes."""
    with pytest.raises(KeyError):
        judge("speed", Comparison(build(pp=1).save(), build(pp=2).save()))


def test_blocked_by_names_each_code_once(build):
    """The reason of a blocked check lists the codes that block it."""
    candidate = build(pp=2)
    candidate.got(dtype="bfloat16", tp=2)
    verdict = judge("engine", Comparison(build(pp=1).save(), candidate.save()))
    assert blocked_by(verdict).summary.startswith("blocked by ENG003: ")


def test_a_legal_layer_split_is_no_verdict():
    """A layer split that can be loaded is for the engine to judge."""
    assert judge_partition(plan_partition({"num_hidden_layers": 8}, 2)) is None


@pytest.mark.parametrize(
    ("config", "pp", "requested", "reason"),
    [
        ({"num_hidden_layers": 2}, 3, None, "fewer than 3 ranks"),
        ({"num_hidden_layers": 8}, 2, (3, 4), "places 7 layers, the model has 8"),
        (
            {
                "num_hidden_layers": 4,
                "num_kv_shared_layers": 2,
                "layer_types": ["full_attention"] * 4,
            },
            2,
            (2, 2),
            "shares the KV cache",
        ),
    ],
)
def test_an_illegal_layer_split_fails_without_an_engine(config, pp, requested, reason):
    """PAR001: a layer split that cannot be loaded fails with the reason, from the config alone."""
    verdict = judge_partition(plan_partition(config, pp, requested))
    assert verdict.outcome is Outcome.FAIL
    assert [finding.code for finding in verdict.findings] == ["PAR001"]
    assert reason in verdict.summary
