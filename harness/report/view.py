"""What every report for people says: states, points and findings by name, the verdict in a line."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from ..plan.points import Point
from .reproduce import reproduce
from .schema import FindingRecord, Report, VerdictRecord

# State of a check -> (symbol, word).
STATES = {
    "pass": ("✓", "pass"),
    "fail": ("✗", "fail"),
    "blocked": ("⊘", "blocked"),
    "inconclusive": ("?", "inconclusive"),
    "not-applicable": ("-", "not applicable"),
    "cured": ("!", "cured"),
}
# Points that the verdict line names.
_NAMED = 3


@dataclass(frozen=True)
class Check:
    """A verdict: `state` is a key of STATES; `known` says that expected.toml foresees it."""

    name: str
    state: str
    known: bool
    record: VerdictRecord

    @property
    def good(self) -> bool:
        """Whether the run may end green with it."""
        return self.known or self.state in ("pass", "not-applicable")

    @property
    def words(self) -> str:
        """Return its state in words."""
        return STATES[self.state][1] + (" (known)" if self.known else "")


@dataclass(frozen=True)
class Shown:
    """A finding with its place in the page: `anchor` is unique and the same in the next run."""

    anchor: str
    point: str
    known: bool
    record: FindingRecord
    command: str

    @property
    def target(self) -> str:
        """Return the name that links to the verdict behind it lead to."""
        return f"{anchor('point', self.point)}-{self.record.check}"

    @property
    def where(self) -> str:
        """Return stage, boundary, layer and key in words."""
        one = self.record
        parts = [
            f"stage {one.rank}" if one.rank is not None else "",
            f"boundary {one.boundary.replace('->', '→')}" if one.boundary else "",
            f"layer {one.layer}" if one.layer is not None else "",
            one.key or "",
        ]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class PointView:
    """A point and its checks by name; `record` is the verdict of one of them."""

    id: str
    record: VerdictRecord
    checks: dict[str, Check]

    @property
    def anchor(self) -> str:
        """Return the name that links lead to."""
        return anchor("point", self.id)

    @property
    def title(self) -> str:
        """Return variant, model and sizes in words; what is at its default is left out."""
        one = self.record
        parts = [one.variant, one.model, f"PP {one.pp}"]
        parts += [f"TP {one.tp}"] if one.tp != 1 else []
        parts += [one.profile] if one.profile != "parity" else []
        return " · ".join(parts)

    @property
    def good(self) -> bool:
        """Whether all its checks are."""
        return all(check.good for check in self.checks.values())

    @property
    def passes(self) -> bool:
        """Whether all its checks pass."""
        return all(check.state == "pass" for check in self.checks.values())

    def figures(self, check: str) -> dict[str, Any]:
        """Return the figures of a check; empty where it was not judged."""
        return self.checks[check].record.figures if check in self.checks else {}


class ReportView:
    """A report, ready to be shown."""

    def __init__(self, report: Report) -> None:
        """Name and group what the report holds; `report` may be of any age."""
        self.report = report
        self.environment = report.environment
        grouped: dict[_Place, list[VerdictRecord]] = {}
        for verdict in report.verdicts:
            grouped.setdefault(_place(verdict), []).append(verdict)
        self._names = {place: _point_id(verdicts[0]) for place, verdicts in grouped.items()}
        self.points = tuple(
            PointView(self._names[place], verdicts[0], {one.check: _check(one) for one in verdicts})
            for place, verdicts in grouped.items()
        )
        self.checks = tuple(check for point in self.points for check in point.checks.values())
        self.findings = tuple(self._shown())
        pins = {one.pin for one in report.verdicts if one.pin}
        self.pins = sorted(pins) or [str(self.environment.get("pin", ""))]

    def _shown(self) -> list[Shown]:
        """Return the findings, those that fail the run first, then by severity, in their order."""
        checks = {(point.id, name): c for point in self.points for name, c in point.checks.items()}
        seen: Counter[str] = Counter()
        shown = []
        for one in self.report.findings:
            point = self._names.get(_place(one)) or _point_id(one)
            name = anchor("finding", one.code, point, one.boundary, one.key)
            seen[name] += 1
            judged = checks.get((point, one.check))
            shown.append(
                Shown(
                    anchor=name if seen[name] == 1 else f"{name}.{seen[name]}",
                    point=point,
                    known=judged is not None and judged.known,
                    record=one,
                    command=reproduce(self.environment, one.check, one.variant, point),
                )
            )
        order = ("error", "warning", "info")
        return sorted(shown, key=lambda one: (order.index(one.record.severity), one.known))

    @property
    def good(self) -> bool:
        """Whether the run judged something, and no verdict fails that is not known."""
        judged = any(check.state != "not-applicable" for check in self.checks)
        return judged and all(check.good for check in self.checks)

    @property
    def verdict(self) -> str:
        """Return the whole run in one line."""
        total = sum(check.state != "not-applicable" for check in self.checks)
        if not total:
            return "FAIL: nothing was judged"
        bad = [check for check in self.checks if not check.good]
        if bad:
            kinds = Counter(check.words for check in bad)
            where = [point.id for point in self.points if not point.good]
            more = f" and {len(where) - _NAMED} more" if len(where) > _NAMED else ""
            return (
                f"FAIL: {', '.join(f'{number} {words}' for words, number in kinds.items())} of "
                f"{total} checks, at {', '.join(where[:_NAMED])}{more}"
            )
        known = sum(check.known for check in self.checks)
        if known:
            return (
                f"PASS: {total - known} of {total} checks pass, {known} fail as expected.toml says"
            )
        return f"PASS: all {total} checks pass" if total > 1 else "PASS: the check passes"


# What tells points of one report apart.
_Place = tuple[str, str, str, str, int, int]


def _place(one: VerdictRecord | FindingRecord) -> _Place:
    return one.pin, one.variant, one.model, one.profile, one.tp, one.pp


def _point_id(one: VerdictRecord | FindingRecord) -> str:
    known = one.point if isinstance(one, VerdictRecord) else ""
    return known or replace(Point.of(one), pin="").id


def anchor(*parts: str | None) -> str:
    """Return a name for a link: letters, digits, dots and dashes only."""
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", part).strip("-") for part in parts if part)


def _check(one: VerdictRecord) -> Check:
    # A verdict that passes and has a reason is one that was expected to fail.
    cured = one.verdict == "pass" and bool(one.reason)
    state = "cured" if cured else one.verdict
    return Check(one.check, state, one.expected and one.verdict != "pass", one)
