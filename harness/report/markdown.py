"""A report in Markdown, as GitHub shows it: for a job's summary, or to be pasted into an issue."""

import re
from collections.abc import Sequence

from ..checks.finding import Severity
from ..checks.registry import check_names, in_order
from .flips import Answer, changed_answers
from .schema import Report
from .text import one_line, printable
from .view import STATES, FindingView, PointView, ReportView, state_of, state_words

# A job's summary may hold 1 MiB: findings listed, answers shown of a finding, longest text.
_MOST_FINDINGS, _MOST_FLIPS, _LONGEST = 100, 3, 600
_PUNCTUATION = re.compile(r"([!-/:-?\[-`{-~])")


def render_markdown(report: Report) -> str:
    """Render the verdict, the table of all points, and the findings, known ones folded.

    Text from models and files is untrusted: it forms no link, no image, no mention, no HTML.
    """
    view = ReportView(report)
    where = ", ".join(
        text(view.environment[name]) for name in ("series", "device") if name in view.environment
    )
    lines = [
        f"## {'✅' if view.good else '❌'} {text(view.verdict)}",
        "",
        f"Pipeline parallelism against PP=1, vLLM {text(', '.join(view.pins))}, {where}.",
        "",
        *([f"Workarounds: {text(', '.join(view.workarounds))}.", ""] if view.workarounds else []),
        *_table(view),
    ]
    known = [finding for finding in view.findings if finding.known]
    failing = [
        finding
        for finding in view.findings
        if not finding.known and finding.record.severity is not Severity.INFO
    ]
    if failing:
        lines += ["", "### Findings", "", *_findings(failing)]
    if known:
        lines += ["", f"<details><summary>{len(known)} known, see expected.toml</summary>", ""]
        lines += [*_findings(known), "", "</details>"]
    return "\n".join(lines) + "\n"


def text(value: object) -> str:
    """Escape text so that Markdown shows it as it is, on one line."""
    line = _PUNCTUATION.sub(r"\\\1", one_line(str(value), _LONGEST))
    return line.replace("@", "@&#8203;")  # a mention is made of the text as shown


def block(value: str, indent: str = "") -> list[str]:
    """Write a code block, fenced by more backquotes than the text has in a row."""
    content = printable(value[:_LONGEST])
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", content)), 3)
    return [indent + line for line in (fence, *content.split("\n"), fence)]


def _table(view: ReportView) -> list[str]:
    checks = in_order([*check_names(), *(verdict.check for verdict in view.report.verdicts)])
    lines = [
        f"| point | {' | '.join(text(check) for check in checks)} |",
        "|--|" + "--|" * len(checks),
    ]
    for point in view.points:
        cells = " | ".join(_cell(point, check) for check in checks)
        lines.append(f"| {text(point.title)} | {cells} |")
    return lines


def _cell(point: PointView, check: str) -> str:
    verdict = point.verdicts.get(check)
    return f"{STATES[state_of(verdict)][0]} {state_words(verdict)}" if verdict else ""


def _findings(findings: Sequence[FindingView]) -> list[str]:
    lines = []
    for finding in findings[:_MOST_FINDINGS]:
        record = finding.record
        lines.append(f"- **{text(record.code)}** {text(finding.point)}: {text(record.message)}")
        where = record.place or finding.where or record.check
        lines.append(f"  - {text(where)}; {text(record.fix)}")
        for answer in changed_answers(record, _MOST_FLIPS):
            lines.append(f"  - asked: {text(answer.question)}")
            both = f"PP=1: {_marked(answer.baseline)}\nhere: {_marked(answer.candidate)}"
            lines += block(both, "    ")
        lines += block(finding.command, "  ")
    if len(findings) > _MOST_FINDINGS:
        lines.append(f"- and {len(findings) - _MOST_FINDINGS} more, see report.json")
    return lines


def _marked(answer: Answer) -> str:
    """Put the first token that differs in guillemets."""
    return one_line(f"{answer.same}»{answer.token}«{answer.rest}", _LONGEST // 3)
