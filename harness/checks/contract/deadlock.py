"""A stage that waits for what its neighbour has not sent: a contract broken so that nothing moves.

An engine that stands still until its time is up says nothing by itself. Where each rank was does
(`ranks` of the failure, hooks/position.py): a receiver that waits, and a sender that is through
with its step and holds something back, are a finding. A sender that is still at work is none.
"""

from typing import Any

from ...capture.record import Capture
from ..finding import Finding, Severity


def deadlocks(capture: Capture) -> list[Finding]:
    """Return a finding for each boundary at which an engine stood still for want of a tensor."""
    failure = capture.failure
    if failure is None or not failure.stands_still:
        return []
    places = {
        (one["stage"], one["tp_rank"]): one for one in failure.ranks.values() if "stage" in one
    }
    found = []
    for (stage, tp_rank), receiver in sorted(places.items()):
        sender = places.get((stage - 1, tp_rank))
        if sender is not None and receiver["doing"] == "receive":
            found += _held_back(capture, stage, sender, receiver)
    return found


def _held_back(
    capture: Capture, stage: int, sender: dict[str, Any], receiver: dict[str, Any]
) -> list[Finding]:
    """Return what a stage waits for though its sender will not send it any more."""
    trace = capture.stages.get(stage)
    declared = sorted((trace.declared if trace else None) or {})
    through = sender["phase"] is None
    if sender["sent"] == receiver["received"] + 1 and sender["unsent"]:
        keys = sender["unsent"]
        what = f"announced {len(sender['keys'])} tensors and sent {_count(sender)} of them"
    elif through and sender["sent"] == receiver["received"] and sender["passes"] > sender["sent"]:
        keys = declared
        what = f"ran step {sender['passes']} and sent nothing"
    else:
        return []
    names = ", ".join(f"'{key}'" for key in keys)
    boundary = f"{stage - 1}->{stage}"
    return [
        Finding(
            "CON002",
            Severity.ERROR,
            f"{names or 'every tensor'} is not sent over {boundary}: stage {stage} waits for it "
            f"and the engine stands still (stage {stage - 1} {what})",
            "send every tensor that is declared and announced, in every step",
            rank=stage,
            boundary=boundary,
            key=keys[0] if len(keys) == 1 else None,
            evidence={"sender": sender, "receiver": receiver},
        )
    ]


def _count(sender: dict[str, Any]) -> int:
    return len(sender["keys"]) - len(sender["unsent"])
