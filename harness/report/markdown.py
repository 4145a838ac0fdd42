"""A report in Markdown, as GitHub shows it: for a job's summary, or to be pasted into an issue."""

import re
from collections.abc import Iterable

from ..checks.judge import CHECKS
from .flips import Answer, flips
from .schema import Report
from .text import one_line, printable
from .view import STATES, PointView, ReportView, Shown

# A job's summary may hold 1 MiB: findings listed, answers shown of one finding, longest text.
_MOST_FINDINGS, _MOST_FLIPS, _LONGEST = 100, 3, 600
_PUNCTUATION = re.compile(r"([!-/:-?\[-`{-~])")


def render_markdown(report: Report) -> str:
    """Return the verdict, the table of all points, and the findings, known ones folded.

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
        *_table(view.points),
    ]
    known = [one for one in view.findings if one.known]
    told = [one for one in view.findings if not one.known and one.record.severity != "info"]
    if told:
        lines += ["", "### Findings", "", *_findings(told)]
    if known:
        lines += ["", f"<details><summary>{len(known)} known, see expected.toml</summary>", ""]
        lines += [*_findings(known), "", "</details>"]
    return "\n".join(lines) + "\n"


def text(value: object) -> str:
    """Return text that Markdown shows as it is, on one line."""
    line = _PUNCTUATION.sub(r"\\\1", one_line(str(value), _LONGEST))
    return line.replace("@", "@&#8203;")  # a mention is made of the text as shown


def block(value: str, indent: str = "") -> list[str]:
    """Return the lines of a code block, fenced by more backquotes than the text has in a row."""
    content = printable(value[:_LONGEST])
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", content)), 3)
    return [indent + line for line in (fence, *content.split("\n"), fence)]


def _table(points: Iterable[PointView]) -> list[str]:
    lines = [f"| point | {' | '.join(CHECKS)} |", "|--|" + "--|" * len(CHECKS)]
    for point in points:
        cells = [
            f"{STATES[point.checks[name].state][0]} {point.checks[name].words}"
            if name in point.checks
            else ""
            for name in CHECKS
        ]
        lines.append(f"| {text(point.title)} | {' | '.join(cells)} |")
    return lines


def _findings(shown: list[Shown]) -> list[str]:
    lines = []
    for one in shown[:_MOST_FINDINGS]:
        record = one.record
        lines.append(f"- **{text(record.code)}** {text(one.point)}: {text(record.message)}")
        lines.append(f"  - {text(record.place or one.where or record.check)}; {text(record.cure)}")
        if record.check == "accuracy":
            for flip in flips(record.evidence.get("examples", []))[:_MOST_FLIPS]:
                lines.append(f"  - asked: {text(flip.question)}")
                lines += block(
                    f"PP=1: {_marked(flip.baseline)}\nhere: {_marked(flip.candidate)}", "    "
                )
        lines += block(one.command, "  ")
    if len(shown) > _MOST_FINDINGS:
        lines.append(f"- and {len(shown) - _MOST_FINDINGS} more, see report.json")
    return lines


def _marked(answer: Answer) -> str:
    """Return an answer with its first token that differs in guillemets."""
    return one_line(f"{answer.same}»{answer.token}«{answer.rest}", _LONGEST // 3)
