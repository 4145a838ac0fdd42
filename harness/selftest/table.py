"""The matrix of a self-test for people."""

from collections.abc import Iterator

from ..checks.finding import Outcome
from ..checks.registry import check_names
from ..engine.seeded import AFTER_LAYERS
from .outcome import ChangeResult, SelftestReport

_MARKS = {Outcome.FAIL: "X", Outcome.PASS: ".", Outcome.INCONCLUSIVE: "?", Outcome.BLOCKED: "b"}
_NOT_ASKED = "-"


def lines(report: SelftestReport) -> Iterator[str]:
    """Yield the matrix, then false alarms, the rates, and what each check alone catches."""
    checks = check_names()
    yield f"{'change':26} {'model':6} pp  {'  '.join(checks)}  found"
    for result in report.results:
        change = result.change
        marks = "  ".join(_mark(result, check).center(len(check)) for check in checks)
        yield f"{change.name:26} {change.model:6} {change.pp:<3} {marks}  {_conclusion(result)}"
    for pair in report.pairs:
        if not pair.is_quiet:
            outcomes = ", ".join(
                f"{check} {outcome.value}" for check, outcome in pair.outcomes.items()
            )
            yield f"FALSE ALARM in {pair.name}: {outcomes}"
    for engine in report.not_run:
        yield f"NOT RUN: {engine}"
    figures = report.figures
    yield (
        f"{figures['caught']} of {figures['faults']} faults caught, "
        f"{figures['undecided']} undecided in noise, "
        f"{figures['located']} of {figures['localisable']} placed rightly, "
        f"{figures['false_alarms']} false alarms in {figures['harmless']} harmless changes "
        f"and {figures['aa_pairs']} A/A pairs"
    )
    alone = ", ".join(f"{check} {count}" for check, count in figures["only"].items())
    yield f"faults that one check alone catches: {alone}"


def _mark(result: ChangeResult, check: str) -> str:
    outcome = result.outcomes.get(check)
    return _MARKS.get(outcome, _NOT_ASKED) if outcome else _NOT_ASKED


def _conclusion(result: ChangeResult) -> str:
    if result.change.harmless:
        return "quiet" if result.is_quiet else "FALSE ALARM"
    if result.is_undecided:
        return "undecided in noise"
    if not result.caught_by:
        return "ESCAPED"
    if not result.is_localisable:
        return "caught, no layer to name"
    place = _place(result.stage, result.layer)
    if result.is_located:
        return place
    return f"{place} (is {_place(result.change.stage, result.change.layer)})"


def _place(stage: int | None, layer: int | None) -> str:
    if stage is None:
        return "no place named"
    return f"stage {stage}" if layer == AFTER_LAYERS else f"stage {stage}, layer {layer}"
