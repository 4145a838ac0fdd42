"""Writes a report as text, JSON, GitHub annotations or SARIF."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from harness.lint.catalogue import RULES, Rule
from harness.lint.report import Finding, LintReport, Severity


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
    return {**asdict(finding), "runners": dict(finding.runners), "counts": counts}


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


_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def as_sarif(report: LintReport) -> str:
    """One run of SARIF 2.1.0, for code scanning services, with every rule described once."""
    rules = list(RULES.values())
    run = {
        "tool": {"driver": {"name": "pp-harness lint", "rules": [_rule(rule) for rule in rules]}},
        "columnKind": "unicodeCodePoints",
        "results": [
            *(_result(f, _LEVELS[f.severity]) for f in report.findings),
            *(_result(f, "note") for f in report.others),
        ],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2)


def _rule(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.name.replace("-", " ")},
        "fullDescription": {"text": rule.explanation},
        "help": {"text": f"{rule.fix}\n\nV1 runner: {rule.v1}\nV2 runner: {rule.v2}"},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _result(finding: Finding, level: str) -> dict[str, object]:
    # Lines move; what the finding is about, and in which file, does not.
    name = f"{finding.code}:{Path(finding.path).name}:{finding.symbol}:{finding.message}"
    path = Path(finding.path)
    uri = path.as_uri() if path.is_absolute() else quote(path.as_posix())
    place = {
        "artifactLocation": {"uri": uri},
        "region": {"startLine": finding.line, "startColumn": finding.column},
    }
    return {
        "ruleId": finding.code,
        "ruleIndex": list(RULES).index(finding.code),
        "level": level,
        "message": {"text": f"{finding.message}. {finding.fix}"},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"ppLint/v1": hashlib.sha256(name.encode()).hexdigest()},
    }


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
