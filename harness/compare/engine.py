"""Did the engine run, cut as asked, and as what was asked?"""

from typing import Any

from ..capture.record import Capture
from .finding import Finding, Outcome, Severity, Verdict, judged

# What the parity profile needs to be equal between PP sizes.
_PARITY = (
    "dtype",
    "enforce_eager",
    "async_scheduling",
    "prefix_caching",
    "kv_blocks",
    "block_size",
    "max_num_batched_tokens",
    "max_num_seqs",
    "architecture",
    "tp",
)


def engine_failure(capture: Capture) -> Verdict | None:
    """Return the verdict on a capture without an answer, None if it is whole.

    An exception with a cause is a failure of the engine; silence is blocked.
    """
    failure = capture.failure
    if capture.status == "ok" or failure is None:
        return None
    at = f"stage {failure['rank']}" if failure["rank"] is not None else "the engine"
    message = f"{at}, {failure['phase']}: {failure['error']}"
    blocked = capture.status == "blocked"
    finding = Finding(
        "ENG002" if blocked else "ENG001",
        Severity.ERROR,
        message,
        "see log.txt of the capture" if blocked else "fix the cause; the traceback is evidence",
        rank=failure["rank"],
        place=failure["place"],
        evidence={"traceback": failure["traceback"], "capture": str(capture.folder)},
    )
    outcome = Outcome.BLOCKED if blocked else Outcome.FAIL
    return Verdict(outcome, message, (finding,))


def compare_engines(baseline: Capture, candidate: Capture) -> Verdict:
    """Judge whether both engines ran and were, but for PP, the same engine."""
    for capture in (candidate, baseline):
        if (verdict := engine_failure(capture)) is not None:
            return verdict
    left: dict[str, Any] = baseline.manifest["effective"]
    right: dict[str, Any] = candidate.manifest["effective"]
    asked = candidate.manifest["cell"]
    findings = [
        Finding(
            "ENG003",
            Severity.ERROR,
            f"{name} is {right[name]} at PP={asked['pp']} and {left[name]} at PP=1",
            "the two cells are not comparable; see the effective configuration in the report",
            evidence={"baseline": left, "candidate": right},
        )
        for name in _PARITY
        if left[name] != right[name]
    ]
    if right["pp"] != asked["pp"] or right["dtype"] != asked["dtype"]:
        findings.append(
            Finding(
                "ENG003",
                Severity.ERROR,
                f"the engine runs PP={right['pp']} {right['dtype']}, asked for PP={asked['pp']} "
                f"{asked['dtype']}",
                "this pin or platform does not give what was asked for",
                evidence={"effective": right},
            )
        )
    runners = sorted({trace.runner for trace in candidate.stages.values()})
    cut = right["partition"] or "the default cut"
    return judged(findings, f"ran on {', '.join(runners) or 'no traced runner'}, {cut}")
