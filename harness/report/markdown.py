"""A report in Markdown, as GitHub shows it: for a job's summary, or to be pasted into an issue."""

import re

from ..checks.finding import Severity
from ..checks.registry import check_names, in_order
from .flips import Answer, changed_answers
from .schema import Report
from .shell import fill
from .text import one_line, printable
from .view import STATES, ReportView, state_of, state_words

# A job's summary may hold 1 MiB: findings listed, answers shown of a finding, longest text.
_MOST_FINDINGS, _MOST_FLIPS, _LONGEST = 100, 3, 600
_PUNCTUATION = re.compile(r"([!-/:-?\[-`{-~])")


def render_markdown(report: Report) -> str:
    """Render the verdict, the table of all points, and the findings, known ones folded.

    Text from models and files is untrusted: it forms no link, no image, no mention, no HTML.
    """
    view = ReportView(report)
    return fill(
        "report.md.j2",
        md=text,
        block=lambda value, indent: "\n".join(block(value, indent)),
        view=view,
        checks=in_order([*check_names(), *(verdict.check for verdict in report.verdicts)]),
        states=STATES,
        state_of=state_of,
        words=state_words,
        known=[finding for finding in view.findings if finding.known],
        failing=[
            finding
            for finding in view.findings
            if not finding.known and finding.record.severity is not Severity.INFO
        ],
        most_findings=_MOST_FINDINGS,
        answers=lambda record: changed_answers(record, _MOST_FLIPS),
        both=lambda answer: f"PP=1: {_marked(answer.baseline)}\nhere: {_marked(answer.candidate)}",
    )


def text(value: object) -> str:
    """Escape text so that Markdown shows it as it is, on one line."""
    line = _PUNCTUATION.sub(r"\\\1", one_line(str(value), _LONGEST))
    return line.replace("@", "@&#8203;")  # a mention is made of the text as shown


def block(value: str, indent: str = "") -> list[str]:
    """Write a code block, fenced by more backquotes than the text has in a row."""
    content = printable(value[:_LONGEST])
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", content)), 3)
    return [indent + line for line in (fence, *content.split("\n"), fence)]


def _marked(answer: Answer) -> str:
    return one_line(f"{answer.same}»{answer.token}«{answer.rest}", _LONGEST // 3)
