"""One check of one point: which captures it needs, and what stands in its way."""

from ..capture.devices import DevicePool
from ..capture.expect import devices_needed
from ..capture.record import Capture
from ..models.partition import PartitionPlan
from ..plan.cell import Cell
from ..plan.cost import expected_bytes
from ..plan.options import DEFAULT_MARGIN
from .accuracy.accuracy import compare_accuracy
from .contract.contract import compare_contract
from .engine import compare_engines, engine_failure, not_applicable
from .finding import Finding, Outcome, Severity, Verdict
from .logits.logits import compare_logits
from .logits.sensitivity import trusted

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


def judge_devices(pool: DevicePool, cell: Cell) -> Verdict | None:
    """Return the verdict on a cell that this host has too few devices for, None if it has."""
    needed = devices_needed(cell, pool)
    if needed <= len(pool.ids):
        return None
    if pool.kind == "cpu" and cell.tp <= len(pool.ids):
        gib = 2**30
        wanted, there = expected_bytes(cell) / gib, len(pool.ids) * pool.memory / gib
        words = f"about {wanted:.0f} GiB of memory, {there:.0f} GiB can be used"
    else:
        words = f"{needed} {pool.kind} devices, {len(pool.ids)} can be used"
    size = f"PP={cell.pp} x TP={cell.tp}" if cell.tp > 1 else f"PP={cell.pp}"
    finding = Finding(
        "DEV001",
        Severity.ERROR,
        f"{size} needs {words}",
        f"use a smaller --pp{' or --pp-tp' if cell.tp > 1 else ''}, or a host with more",
    )
    return Verdict(Outcome.BLOCKED, finding.message, (finding,))


def blocked_by(cause: Verdict) -> Verdict:
    """Return BLOCKED for a check that has no answer because of what `cause` says."""
    codes = ", ".join(sorted({finding.code for finding in cause.findings}))
    return Verdict(Outcome.BLOCKED, f"blocked by {codes}: {cause.summary}")


def judge(
    check: str, baseline: Capture, candidate: Capture, margin: float = DEFAULT_MARGIN
) -> Verdict:
    """Judge one check of a point from the captures at PP=1 and PP=N.

    A contract verdict needs no baseline, and speaks even when the engine failed, if the tracer
    saw the cause. Logits and accuracy need both engines whole. `margin` is the fall of accuracy
    that is accepted, as a share of the questions.

    Raises:
        KeyError: if there is no such check.
    """
    if check == "engine":
        return compare_engines(baseline, candidate)
    if (aside := not_applicable(baseline, candidate)) is not None:
        return Verdict(aside.outcome, aside.summary)
    if check == "contract":
        verdict = compare_contract(candidate)
        failure = engine_failure(candidate)
        if verdict.outcome is Outcome.BLOCKED and failure is not None:
            return blocked_by(failure)
        return verdict
    if check == "accuracy" and candidate.cell.gsm8k is None:
        return Verdict(Outcome.NOT_APPLICABLE, "a shape has no tokenizer and can answer nothing")
    for capture in (candidate, baseline):
        if (failure := engine_failure(capture)) is not None:
            return blocked_by(failure)
    if check == "logits":
        return trusted(compare_logits(baseline, candidate), baseline, candidate)
    if check == "accuracy":
        return compare_accuracy(baseline, candidate, margin)
    raise KeyError(check)
