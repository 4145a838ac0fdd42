"""Two reports compared: verdicts, finding codes, figures and output bits that changed. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from ..checks.finding import Outcome, Severity
from ..engine.settings import Profile
from ..errors import BadInputError
from ..plan.points import Point
from .history import SETTING, HistoryLine, history_lines
from .schema import Report
from .trend import TOLERANCES

# From good to bad; a check that was prevented from an answer is as bad as one that failed.
_OUTCOMES = ("ok", "expected", "unexpected")
_VERDICTS = {
    Outcome.PASS: 0,
    Outcome.NOT_APPLICABLE: 0,
    Outcome.INCONCLUSIVE: 1,
    Outcome.BLOCKED: 2,
    Outcome.FAIL: 2,
}


class Effect(StrEnum):
    """Direction of a change; `CHANGED` is neither, or within the tolerance of a figure."""

    WORSE = "worse"
    BETTER = "better"
    CHANGED = "changed"


@dataclass(frozen=True)
class Change:
    """A difference of a check or of an engine, named as in pytest's item ids."""

    effect: Effect
    name: str
    message: str


@dataclass(frozen=True)
class ReportDiff:
    """Changes of the `compared` checks; `conditions` are those that the reports do not share."""

    compared: int
    conditions: tuple[str, ...]
    changes: tuple[Change, ...]

    @property
    def worse(self) -> int:
        """Number of changes for the worse."""
        return sum(change.effect is Effect.WORSE for change in self.changes)


def diff_reports(old: Report, new: Report) -> ReportDiff:
    """Compare the checks of two reports; pins are told apart only where a report has several.

    A check that `new` lacks got worse: nothing says that it still passes.

    Raises:
        BadInputError: if they have no check in common.
    """
    before, after = _lines(old), _lines(new)
    compared = len(before.keys() & after.keys())
    if not compared:
        raise BadInputError("report diff: the reports have no check in common")
    errors = {
        finding.code
        for report in (old, new)
        for finding in report.findings
        if finding.severity is Severity.ERROR
    }
    changes = []
    for place in dict.fromkeys([*before, *after]):
        point, check = place
        for effect, message in _changes(before.get(place), after.get(place), errors):
            changes.append(Change(effect, f"{check}[{point.id}]", message))
    conditions = tuple(
        f"{name}: {old.environment.get(name)} -> {new.environment.get(name)}"
        for name in ("pin", "series", "host", *SETTING)
        if old.environment.get(name) != new.environment.get(name)
    )
    return ReportDiff(compared, conditions, (*changes, *_unsteady(old, new)))


def _lines(report: Report) -> dict[tuple[Point, str], HistoryLine]:
    lines = history_lines(report, 0.0)
    several = len({line.pin for line in lines}) > 1
    return {
        (replace(Point.of(line), pin=line.pin if several else ""), line.check): line
        for line in lines
    }


def _changes(
    old: HistoryLine | None, new: HistoryLine | None, errors: set[str]
) -> Iterator[tuple[Effect, str]]:
    states = " -> ".join(line.state if line else "not judged" for line in (old, new))
    if old is None or new is None:
        bad = new is None or new.outcome == "unexpected"
        yield (Effect.WORSE if bad else Effect.CHANGED), states
        return
    if old.state != new.state:
        yield _direction(_badness(new) - _badness(old)), f"{states}: {new.summary}"
    for code in sorted(set(new.codes) ^ set(old.codes)):
        appeared = code in new.codes
        known = code not in errors or (appeared and new.outcome == "expected")
        effect = Effect.CHANGED if known else Effect.WORSE if appeared else Effect.BETTER
        yield effect, f"{code} {'appeared' if appeared else 'is gone'}"
    yield from _figures(old, new)


def _figures(old: HistoryLine, new: HistoryLine) -> Iterator[tuple[Effect, str]]:
    for name in sorted(old.figures.keys() & new.figures.keys()):
        was, now, tolerance = old.figures[name], new.figures[name], TOLERANCES.get(name)
        if f"{was:.6g}" == f"{now:.6g}":
            continue
        effect = Effect.CHANGED
        if tolerance is not None and old.outcome == "ok":  # what failed before is no reference
            effect = _direction(tolerance.is_worse(now, was) - tolerance.is_worse(was, now))
        yield effect, f"{name} {was:.6g} -> {now:.6g}"


def _unsteady(old: Report, new: Report) -> Iterator[Change]:
    """One change for each output whose bits differ though the key of its capture does not."""
    known = {cell.key: cell for cell in old.cells if cell.key}
    for cell in new.cells:
        # Under stress the batches differ from run to run, and so may the bits.
        if cell.key not in known or cell.profile != Profile.PARITY:
            continue
        for name, digest in sorted(cell.outputs.items()):
            if known[cell.key].outputs.get(name, digest) != digest:
                message = f"{name} have other bits, from equal inputs"
                yield Change(Effect.WORSE, Point.of(cell).id, message)


def _badness(line: HistoryLine) -> int:
    return len(_OUTCOMES) * _VERDICTS[line.verdict] + _OUTCOMES.index(line.outcome)


def _direction(worse: int) -> Effect:
    return Effect.WORSE if worse > 0 else Effect.BETTER if worse < 0 else Effect.CHANGED
