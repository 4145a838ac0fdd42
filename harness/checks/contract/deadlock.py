"""A stage that waits for a tensor that its neighbour holds back: a contract broken by silence.

An engine that stands still until its time is up says nothing by itself. The position of each rank
does (`ranks` of the failure, hooks/position.py): a receiver that waits, and a sender that is
through with its step and holds something back, are a finding. A sender that is still at work is
none.
"""

from typing import Any

from ...capture.record import Capture
from ..finding import Finding


def deadlocks(capture: Capture) -> list[Finding]:
    """Findings for the boundaries at which an engine stood still for want of a tensor."""
    failure = capture.failure
    if failure is None or not failure.stands_still:
        return []
    positions = {
        (position["stage"], position["tp_rank"]): position
        for position in failure.ranks.values()
        if "stage" in position
    }
    findings = []
    for (stage, tp_rank), receiver in sorted(positions.items()):
        sender = positions.get((stage - 1, tp_rank))
        if sender is not None and receiver["doing"] == "receive":
            finding = _held_back(capture, stage, sender, receiver)
            findings += [finding] if finding else []
    return findings


def _held_back(
    capture: Capture, stage: int, sender: dict[str, Any], receiver: dict[str, Any]
) -> Finding | None:
    """Finding of a stage that waits for a tensor which its sender will not send any more."""
    trace = capture.stages.get(stage)
    is_through = sender["phase"] is None
    if sender["sent"] == receiver["received"] + 1 and sender["unsent"]:
        keys, announced = sender["unsent"], len(sender["keys"])
        sent = f"announced {announced} tensors and sent {announced - len(keys)} of them"
    elif is_through and receiver["received"] == sender["sent"] < sender["passes"]:
        keys = sorted((trace.declared if trace else None) or {})
        sent = f"ran step {sender['passes']} and sent nothing"
    else:
        return None
    names = ", ".join(f"'{key}'" for key in keys)
    boundary = f"{stage - 1}->{stage}"
    return Finding(
        "CON002",
        f"{names or 'every tensor'} is not sent over {boundary}: stage {stage} waits for it "
        f"and the engine stands still (stage {stage - 1} {sent})",
        "send every tensor that is declared and announced, in every step",
        stage=stage,
        boundary=boundary,
        key=keys[0] if len(keys) == 1 else None,
        evidence={"sender": sender, "receiver": receiver},
    )
