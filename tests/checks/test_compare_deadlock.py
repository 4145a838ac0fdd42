"""When an engine that stands still is a broken contract, and when it is only late."""

import pytest

from harness.capture.manifest import Status
from harness.checks.contract.contract import compare_contract
from harness.checks.contract.deadlock import deadlocks
from harness.checks.finding import Outcome

KEYS = {"hidden_states": [8], "extra": [2]}
IDLE = {"phase": None, "doing": None, "keys": list(KEYS), "unsent": [], "received": 0}
WAITS = {"phase": "execute_model", "doing": "receive", "keys": [], "unsent": [], "sent": 0}


def late(build, *positions, **failure):
    """A capture of an engine that stood still, with its ranks in `positions`."""
    builder = build(pp=len(positions), keys=KEYS)
    ranks = {
        str(stage): {"rank": stage, "stage": stage, "tp_rank": 0, **position}
        for stage, position in enumerate(positions)
    }
    stood_still = {
        "phase": "probes",
        "error": "no end of phase probes within 1 s",
        "stands_still": True,
        "ranks": ranks,
    }
    return builder.fail(Status.BLOCKED, **{**stood_still, **failure}).save()


def test_nothing_is_sent(build):
    """The sender is through with a step more than it sent: every declared key is missing."""
    capture = late(build, {**IDLE, "passes": 3, "sent": 2}, {**WAITS, "passes": 2, "received": 2})
    (finding,) = deadlocks(capture)
    assert (finding.code, finding.boundary, finding.stage) == ("CON002", "0->1", 1)
    assert "'extra', 'hidden_states' is not sent over 0->1" in finding.message
    assert "ran step 3 and sent nothing" in finding.message
    assert compare_contract(capture).outcome is Outcome.FAIL


def test_fewer_tensors_are_sent_than_announced(build):
    """The key that was held back is named."""
    sender = {**IDLE, "passes": 3, "sent": 3, "unsent": ["extra"]}
    (finding,) = deadlocks(late(build, sender, {**WAITS, "passes": 2, "received": 2}))
    assert finding.key == "extra"
    assert "announced 2 tensors and sent 1" in finding.message


def test_the_boundary_that_is_broken_is_named(build):
    """Of three stages that stand still, the one behind the mute stage waits in vain."""
    capture = late(
        build,
        {**IDLE, "passes": 1, "sent": 1},
        {**IDLE, "passes": 1, "sent": 0, "received": 1},
        {**WAITS, "passes": 0, "received": 0},
    )
    (finding,) = deadlocks(capture)
    assert finding.boundary == "1->2"


AT_WORK = {**IDLE, "phase": "execute_model", "passes": 2, "sent": 2}
WAITING = {**WAITS, "passes": 2, "received": 2}


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [
        (AT_WORK, WAITING),
        ({**IDLE, "passes": 2, "sent": 2}, WAITING),
        ({**AT_WORK, "doing": "send", "sent": 3}, WAITING),
        ({**IDLE, "passes": 3, "sent": 2}, {**WAITING, "doing": None}),
    ],
    ids=["sender computes", "sender has no step to run", "sender sends", "receiver computes"],
)
def test_what_is_only_late_is_no_finding(build, sender, receiver):
    """A stage that waits for one that is at work, stopped or out of work breaks no contract."""
    capture = late(build, sender, receiver)
    assert list(deadlocks(capture)) == []
    assert compare_contract(capture).outcome is Outcome.BLOCKED


def test_an_engine_that_died_stands_not_still(build):
    """Positions of an engine that ended say nothing of a deadlock."""
    mute = {**IDLE, "passes": 3, "sent": 2}
    assert list(deadlocks(late(build, mute, WAITING, stands_still=False))) == []
