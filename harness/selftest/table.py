"""The matrix of a self-test for people."""

from collections.abc import Iterator

from ..checks.finding import Outcome
from ..checks.registry import check_names
from .outcome import Result, Selftest

_MARKS = {Outcome.FAIL: "X", Outcome.PASS: ".", Outcome.INCONCLUSIVE: "?", Outcome.BLOCKED: "b"}


def lines(selftest: Selftest) -> Iterator[str]:
    """Yield the matrix, then what alarmed, the rates, and what each check is for."""
    checks = check_names()
    yield f"{'change':26} {'model':6} pp  {'  '.join(checks)}  found"
    for one in selftest.results:
        marks = "  ".join(_mark(one, check).center(len(check)) for check in checks)
        yield f"{one.seed.name:26} {one.seed.model:6} {one.seed.pp:<3} {marks}  {_found(one)}"
    for alarm in selftest.pairs:
        if not alarm.is_quiet:
            verdicts = ", ".join(f"{check} {verdict}" for check, verdict in alarm.verdicts.items())
            yield f"FALSE ALARM in {alarm.name}: {verdicts}"
    figures = selftest.figures
    yield (
        f"{figures['caught']} of {figures['faults']} faults caught, "
        f"{figures['located']} of {figures['localisable']} placed rightly, "
        f"{figures['false_alarms']} false alarms in {figures['harmless']} harmless changes "
        f"and {figures['aa_pairs']} A/A pairs"
    )
    alone = ", ".join(f"{check} {count}" for check, count in figures["only"].items())
    yield f"faults that one check alone catches: {alone}"


def _mark(one: Result, check: str) -> str:
    outcome = one.verdicts.get(check)
    return _MARKS.get(outcome, "-") if outcome else "-"


def _found(one: Result) -> str:
    if one.seed.harmless:
        return "quiet" if one.is_quiet else "FALSE ALARM"
    if not one.caught_by:
        return "ESCAPED"
    if not one.seed.is_localisable:
        return "caught, no layer to name"
    where = f"stage {one.stage}, layer {one.layer}" if one.layer != -1 else f"stage {one.stage}"
    wanted = f" (is stage {one.seed.stage}, layer {one.seed.layer})"
    return where + ("" if one.is_located else wanted)
