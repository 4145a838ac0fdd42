"""One check of one point: which captures it needs, and what stands in its way."""

from .capture.devices import DevicePool
from .capture.record import Capture
from .compare.accuracy import compare_accuracy
from .compare.contract import compare_contract
from .compare.engine import compare_engines, engine_failure
from .compare.finding import Finding, Outcome, Severity, Verdict
from .compare.logits import compare_logits
from .source.partition import PartitionPlan

CHECKS = ("engine", "contract", "logits", "accuracy")


def judge_partition(plan: PartitionPlan) -> Verdict | None:
    """Return the verdict on a cut that cannot be loaded, None if it can; no engine is started."""
    if plan.illegal_reason is None:
        return None
    cut = ",".join(map(str, plan.layers_per_rank))
    finding = Finding(
        "PAR001",
        Severity.ERROR,
        f"cut {cut} over {plan.pp} stages cannot be loaded: {plan.illegal_reason}",
        plan.note or "use another --pp-partition, or a smaller --pp",
        evidence={"cut": list(plan.layers_per_rank)},
    )
    return Verdict(Outcome.FAIL, finding.message, (finding,))


def judge_devices(pool: DevicePool, pp: int) -> Verdict | None:
    """Return the verdict on a PP size that this host has too few devices for, None if it has."""
    needed = pool.needed(pp, 1)
    if needed <= len(pool.ids):
        return None
    finding = Finding(
        "DEV001",
        Severity.ERROR,
        f"PP={pp} needs {needed} {pool.kind} devices, {len(pool.ids)} can be used",
        "use a smaller --pp, or a host with more devices",
    )
    return Verdict(Outcome.BLOCKED, finding.message, (finding,))


def blocked_by(cause: Verdict) -> Verdict:
    """Return BLOCKED for a check that has no answer because of what `cause` says."""
    codes = ", ".join(sorted({finding.code for finding in cause.findings}))
    return Verdict(Outcome.BLOCKED, f"blocked by {codes}: {cause.summary}")


def judge(check: str, baseline: Capture, candidate: Capture) -> Verdict:
    """Judge one check of a point from the captures at PP=1 and PP=N.

    A contract verdict needs no baseline, and speaks even when the engine failed, if the tracer
    saw the cause. Logits and accuracy need both engines whole.
    """
    if check == "engine":
        return compare_engines(baseline, candidate)
    if check == "contract":
        verdict = compare_contract(candidate)
        failure = engine_failure(candidate)
        if verdict.outcome is Outcome.BLOCKED and failure is not None:
            return blocked_by(failure)
        return verdict
    for capture in (candidate, baseline):
        if (failure := engine_failure(capture)) is not None:
            return blocked_by(failure)
    compare = {"logits": compare_logits, "accuracy": compare_accuracy}[check]
    return compare(baseline, candidate)
