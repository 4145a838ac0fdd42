"""Writes a report as text, JSON or GitHub annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol

from harness.lint.report import Finding, LintReport, Severity
from harness.lint.sarif import as_sarif


class Renderer(Protocol):
    """Writes a report: what decides the status first, then what the user asked for beside it."""

    def __call__(
        self, report: LintReport, *, verbose: bool = False, everything: bool = False
    ) -> str:
        """`verbose` adds info, `everything` the findings that do not count."""


def _counted(number: int, noun: str, plural: str) -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


def as_text(report: LintReport) -> str:
    """One line per finding, as ruff writes them, and a summary."""
    lines = [_line(f) for f in report.findings]
    if report.others:
        lines.append("not counted: known, or in files that the change only touches")
        lines += [_line(f) for f in report.others]
    counts = ", ".join(
        _counted(report.count(severity), severity, "s")
        for severity in (Severity.ERROR, Severity.WARNING)
    )
    lines.append(
        f"{counts}; {_counted(report.classes, 'PP class', 'es')} "
        f"in {report.analysed} of {_counted(report.files, 'file', 's')}"
        + (f"; {report.waived} waived" if report.waived else "")
        + (f"; not shown: {' and '.join(report.hidden)}" if report.hidden else "")
    )
    return "\n".join(lines)


def _line(f: Finding) -> str:
    return f"{f.path}:{f.line}:{f.column}: {f.code} {f.severity}: {f.message}\n    {f.fix}"


def record(finding: Finding, *, counts: bool) -> dict[str, object]:
    """The JSON object of a finding."""
    return {
        "code": finding.code,
        "severity": str(finding.severity),
        "path": finding.path,
        "line": finding.line,
        "column": finding.column,
        "message": finding.message,
        "fix": finding.fix,
        "symbol": finding.symbol,
        "runners": dict(finding.runners),
        "counts": counts,
    }


def as_json(report: LintReport) -> str:
    """A list of findings; `counts` says whether one can decide the exit status."""
    own = [record(f, counts=f.severity is not Severity.INFO) for f in report.findings]
    return json.dumps([*own, *(record(f, counts=False) for f in report.others)], indent=2)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def as_github(report: LintReport) -> str:
    """Workflow commands that GitHub shows beside the lines; what does not count is a notice."""
    kinds = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
    commands = [(kinds[f.severity], f) for f in report.findings]
    commands += [("notice", f) for f in report.others]
    return "\n".join(
        f"::{kind} file={_property(f.path)},line={f.line},col={f.column},"
        f"title={_property(f.code)}::{_escaped(f'{f.message}. {f.fix}')}"
        for kind, f in commands
    )


def _renderer(write: Callable[[LintReport], str]) -> Renderer:
    def render(report: LintReport, *, verbose: bool = False, everything: bool = False) -> str:
        return write(report.shown(verbose=verbose, everything=everything))

    return render


RENDERERS: dict[str, Renderer] = {
    "text": _renderer(as_text),
    "json": _renderer(as_json),
    "github": _renderer(as_github),
    "sarif": _renderer(as_sarif),
}
