"""A stage that waits for a tensor that its neighbour holds back: a contract broken by silence.

An engine that stands still until its time is up says nothing by itself. The position of each rank
does (`ranks` of the failure, hooks/position.py): a receiver that waits, and a sender that is
through with its step and holds something back, are a finding. A sender that is still at work is
none.
"""

from collections.abc import Iterator

from ...capture.record import Capture
from ..finding import Finding


def deadlocks(capture: Capture) -> Iterator[Finding]:
    """Yield a finding for each boundary at which an engine stood still for want of a tensor."""
    failure = capture.failure
    if failure is None or not failure.stands_still:
        return
    positions = {
        (position["stage"], position["tp_rank"]): position
        for position in failure.ranks.values()
        if "stage" in position
    }
    for (stage, tp_rank), receiver in sorted(positions.items()):
        sender = positions.get((stage - 1, tp_rank))
        if sender is None or receiver["doing"] != "receive":
            continue
        if sender["sent"] == receiver["received"] + 1 and sender["unsent"]:
            keys, announced = sender["unsent"], len(sender["keys"])
            sent = f"announced {announced} tensors and sent {announced - len(keys)} of them"
        elif sender["phase"] is None and receiver["received"] == sender["sent"] < sender["passes"]:
            trace = capture.stages.get(stage)
            keys = sorted((trace.declared if trace else None) or {})
            sent = f"ran step {sender['passes']} and sent nothing"
        else:  # the sender is still at work
            continue
        names = ", ".join(f"'{key}'" for key in keys)
        boundary = f"{stage - 1}->{stage}"
        yield Finding(
            "CON002",
            f"{names or 'every tensor'} is not sent over {boundary}: stage {stage} waits for it "
            f"and the engine stands still (stage {stage - 1} {sent})",
            "send every tensor that is declared and announced, in every step",
            stage=stage,
            boundary=boundary,
            key=keys[0] if len(keys) == 1 else None,
            evidence={"sender": sender, "receiver": receiver},
        )
