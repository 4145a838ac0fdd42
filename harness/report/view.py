"""A report grouped and named for people: states, points, findings, and the verdict in a line."""

import re
from collections import Counter
from dataclasses import dataclass

from ..checks.finding import Outcome, Severity
from ..plan.points import Point
from .order import by_point, point_name
from .reproduce import reproduce
from .schema import FindingRecord, Report, VerdictRecord

# An outcome, or that of a verdict which passes although a finding is expected.
_UNEXPECTED_PASS = "unexpected-pass"  # noqa: S105 - a state, no password
# State of a verdict -> (symbol, word).
STATES: dict[str, tuple[str, str]] = {
    Outcome.PASS: ("✓", "pass"),
    Outcome.FAIL: ("✗", "fail"),
    Outcome.BLOCKED: ("⊘", "blocked"),
    Outcome.INCONCLUSIVE: ("?", "inconclusive"),
    Outcome.NOT_APPLICABLE: ("-", "not applicable"),
    _UNEXPECTED_PASS: ("!", "unexpected pass"),
}
# Points that the verdict line names.
_NAMED = 3


def state_of(verdict: VerdictRecord) -> str:
    """The state of a verdict, a key of STATES."""
    return _UNEXPECTED_PASS if verdict.is_unexpected_pass else verdict.verdict


def state_words(verdict: VerdictRecord) -> str:
    """Name the state of a verdict."""
    return STATES[state_of(verdict)][1] + (" (known)" if verdict.known else "")


@dataclass(frozen=True)
class FindingView:
    """A finding with its place in the page: `anchor` is unique and the same in the next run."""

    anchor: str
    point: str
    known: bool
    record: FindingRecord
    command: str

    @property
    def target(self) -> str:
        """The name that links to the verdict behind it lead to."""
        return f"{anchor('point', self.point)}-{self.record.check}"

    @property
    def where(self) -> str:
        """Stage, boundary, layer and key in words."""
        return self.record.where.replace("->", "→")

    @property
    def state(self) -> str:
        """Its word in the filter: `known`, `bad` where it fails the run, or `pass`."""
        if self.known:
            return "known"
        return "bad" if self.record.severity is Severity.ERROR else "pass"

    @property
    def weight(self) -> tuple[int, bool]:
        """The key that sorts findings: heaviest first, known ones after others."""
        return list(Severity).index(self.record.severity), self.known


@dataclass(frozen=True)
class PointView:
    """A point, its name in the report, and its verdicts by check."""

    name: str
    point: Point
    verdicts: dict[str, VerdictRecord]

    @property
    def anchor(self) -> str:
        """The name that links lead to."""
        return anchor("point", self.name)

    @property
    def title(self) -> str:
        """Variant, model and sizes in words, without those at their default."""
        point = self.point
        return " · ".join([point.variant, point.model, f"PP {point.pp}", *point.extras])

    @property
    def good(self) -> bool:
        """Whether all its verdicts are."""
        return all(verdict.good for verdict in self.verdicts.values())

    @property
    def state(self) -> str:
        """Its word in the filter: `pass`, `known`, or `bad` where it fails the run."""
        if all(state_of(verdict) == Outcome.PASS for verdict in self.verdicts.values()):
            return "pass"
        return "known" if self.good else "bad"


class ReportView:
    """A report, ready to be shown."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.environment = report.environment
        self.points = tuple(
            PointView(point_name(verdicts[0]), point, {v.check: v for v in verdicts})
            for point, verdicts in by_point(report.verdicts).items()
        )
        self.findings = self._findings()
        pins = {verdict.pin for verdict in report.verdicts if verdict.pin}
        self.workarounds = workarounds_of(report)
        self.pins = sorted(pins) or [str(self.environment.get("pin", ""))]

    def _findings(self) -> tuple[FindingView, ...]:
        """View the findings: errors that fail the run first, then by severity, in their order."""
        points = {point.point: point for point in self.points}
        seen: Counter[str] = Counter()
        views = []
        for record in self.report.findings:
            point = points.get(Point.of(record))
            verdict = point.verdicts.get(record.check) if point else None
            name = point.name if point else point_name(record)
            link = anchor("finding", record.code, name, record.boundary, record.key)
            seen[link] += 1
            views.append(
                FindingView(
                    anchor=link if seen[link] == 1 else f"{link}.{seen[link]}",
                    point=name,
                    known=verdict is not None and verdict.known,
                    record=record,
                    command=reproduce(self.environment, record.check, record.variant, name),
                )
            )
        return tuple(sorted(views, key=lambda view: view.weight))

    @property
    def _judged(self) -> list[VerdictRecord]:
        return [v for v in self.report.verdicts if v.verdict is not Outcome.NOT_APPLICABLE]

    @property
    def good(self) -> bool:
        """Whether the run judged something, and no verdict fails that is not known."""
        return bool(self._judged) and all(verdict.good for verdict in self.report.verdicts)

    @property
    def verdict(self) -> str:
        """The whole run in one line."""
        total = len(self._judged)
        if not total:
            return "FAIL: nothing was judged"
        bad = [verdict for verdict in self.report.verdicts if not verdict.good]
        if bad:
            kinds = Counter(state_words(verdict) for verdict in bad)
            where = [point.name for point in self.points if not point.good]
            more = f" and {len(where) - _NAMED} more" if len(where) > _NAMED else ""
            return (
                f"FAIL: {', '.join(f'{number} {words}' for words, number in kinds.items())} of "
                f"{total} checks, at {', '.join(where[:_NAMED])}{more}"
            )
        known = sum(verdict.known for verdict in self.report.verdicts)
        if known:
            return (
                f"PASS: {total - known} of {total} checks pass, {known} fail as expected.toml says"
            )
        return f"PASS: all {total} checks pass" if total > 1 else "PASS: the check passes"


def workarounds_of(report: Report) -> list[str]:
    """Name the workarounds that acted in a report's engines, each with the releases it acted in."""
    releases: dict[str, set[str]] = {}
    for cell in report.cells:
        for name in (cell.effective or {}).get("workarounds", ()):
            releases.setdefault(name, set()).add(cell.pin)
    return [f"{name} (vLLM {', '.join(sorted(releases[name]))})" for name in sorted(releases)]


def anchor(*parts: str | None) -> str:
    """Make a name for a link: letters, digits, dots and dashes only."""
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", part).strip("-") for part in parts if part)
