"""One page for people: everything a report holds, in one file that needs no network."""

from typing import Any

from ..checks.registry import figure_of, in_order
from .flips import ChangedAnswer, answer_examples, changed_answers
from .heat_map import heat_map
from .pipe import pipe
from .schema import Report
from .shell import render
from .view import STATES, PointView, ReportView, state_of, state_words

# Changed answers that a point shows on the page; report.json has all of them.
_MOST_FLIPS = 20


def render_page(report: Report) -> str:
    """Render the page of a report of any age, as UTF-8 text.

    Text from models, files and tracebacks is untrusted: `render` shows it as text.
    """
    view = ReportView(report)
    return render(
        "page.html.j2",
        scripted=True,
        view=view,
        checks=in_order(verdict.check for verdict in report.verdicts),
        states=STATES,
        state_of=state_of,
        words=state_words,
        label=lambda check, name: figure_of(check, name).title,
        pipe=lambda point, check: pipe(point, check, view.findings),
        flips=lambda point, check: _flips(view, point, check),
        heat_map=heat_map,
        rows=_matrix_rows(view),
        sizes=sorted({point.point.pp for point in view.points}),
        floor_of=floor_of,
        answer_examples=answer_examples,
        scalars=_scalars,
    )


def _matrix_rows(view: ReportView) -> dict[tuple[str, ...], dict[int, PointView]]:
    """Group the points by all that they share but PP, then by PP."""
    rows: dict[tuple[str, ...], dict[int, PointView]] = {}
    for shown in view.points:
        point = shown.point
        pin = [point.pin] if len(view.pins) > 1 else []
        row = point.variant, point.model, " ".join([*pin, *point.extras])
        rows.setdefault(row, {})[point.pp] = shown
    return rows


def _flips(view: ReportView, point: PointView, check: str) -> list[ChangedAnswer]:
    return [
        answer
        for finding in view.findings
        if finding.point == point.name and finding.record.check == check
        for answer in changed_answers(finding.record, _MOST_FLIPS)
    ]


def floor_of(check: str, name: str, floor: dict[str, Any]) -> Any:
    """The value of a noise floor beside the figure `name`; empty where it has none.

    A floor of rows that are all equal bit by bit is not a number.
    """
    rows = floor.get("rows")
    if figure_of(check, name).is_distance and rows and floor.get("equal_rows") == rows:
        return "bit-identical"
    return floor.get(name, "")


def _scalars(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in figures.items() if not isinstance(v, dict | list | tuple)}
