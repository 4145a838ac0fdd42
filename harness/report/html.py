"""One page for people: everything a report holds, in one file that needs no network."""

from typing import Any

from ..checks.judge import CHECKS
from .charts import difference_chart, difference_rows, timing_chart
from .flips import Flip, flips
from .pipe import pipe
from .schema import Report
from .shell import render
from .view import STATES, PointView, ReportView

# Figure -> what it is, with its unit; others are shown by their own names.
_LABELS = {
    "rows": "rows compared",
    "equal_rows": "rows with equal bits",
    "max_abs": "largest difference of a logit",
    "relative_rms": "RMS of the difference over RMS of the logits",
    "kl": "largest KL divergence of a row (nats)",
    "kl_reverse": "largest KL divergence of a row, the other way (nats)",
    "top1": "share of rows with the same highest token",
    "top5": "share of the five highest tokens that stay among them",
    "smallest_flip_margin": "smallest margin of a token that flipped",
    "noise_limit": "largest relative RMS of a row that rounding explains",
    "noise_limit_largest": "largest difference over the row's largest logit that rounding explains",
    "noise_reason": "because",
    "questions": "questions",
    "baseline": "accuracy at PP=1",
    "candidate": "accuracy here",
    "lost": "questions lost",
    "won": "questions won",
    "outputs_changed": "answers that differ",
    "p_value": "p of so many losses by chance (exact McNemar)",
    "fall_low": "lower 95 % bound of the fall",
    "fall_bound": "upper 95 % bound of the fall",
    "margin": "accepted fall",
    "floor": "noise floor: PP=1 against itself",
    "filter": "answers read by",
    "flexible_baseline": "accuracy at PP=1, read by flexible-extract",
    "flexible_candidate": "accuracy here, read by flexible-extract",
    "flexible_lost": "questions lost, read by flexible-extract",
    "flexible_won": "questions won, read by flexible-extract",
}
# What a noise floor says of a difference; the others of its figures count rows.
_DISTANCES = (
    *("max_abs", "relative_rms", "kl", "kl_reverse", "top1", "top5"),
    "smallest_flip_margin",
)
# Evidence that has a place of its own on the page.
_SHOWN_ELSEWHERE = {("accuracy", "examples")}
# Changed answers that a point shows on the page; report.json has all of them.
_MOST_FLIPS = 20
PAGE = "report.html"


def render_page(report: Report) -> str:
    """Return the page of a report of any age, as UTF-8 text below 6 MB.

    Text from models, files and tracebacks is untrusted: `render` shows it as text.
    """
    view = ReportView(report)
    return render(
        "page.html.j2",
        charts=_charts(view),
        view=view,
        checks=CHECKS,
        states=STATES,
        labels=_LABELS,
        pipe=lambda point: pipe(point, view.findings),
        flips=lambda point: _flips(view, point),
        difference_rows=difference_rows,
        rows=_matrix_rows(view),
        sizes=sorted({point.record.pp for point in view.points}),
        floor_of=floor_of,
        is_shown_elsewhere=lambda check, name: (check, name) in _SHOWN_ELSEWHERE,
        scalars=_scalars,
    )


def _matrix_rows(view: ReportView) -> dict[tuple[str, ...], dict[int, PointView]]:
    """Return the points by what they have in common but for PP, then by PP."""
    rows: dict[tuple[str, ...], dict[int, PointView]] = {}
    for point in view.points:
        one = point.record
        extra = [one.pin] if len(view.pins) > 1 else []
        extra += [one.profile] if one.profile != "parity" else []
        extra += [f"TP {one.tp}"] if one.tp != 1 else []
        rows.setdefault((one.variant, one.model, " ".join(extra)), {})[one.pp] = point
    return rows


def _charts(view: ReportView) -> dict[str, Any]:
    """Return the figures of the page by the id of the element that shows them."""
    charts = {
        f"{point.anchor}-map": difference_chart(point.figures("logits")["difference"])
        for point in view.points
        if point.figures("logits").get("difference")
    }
    timing = timing_chart(view.report.cells)
    return charts | ({"timing-chart": timing} if timing else {})


def _flips(view: ReportView, point: PointView) -> list[Flip]:
    return [
        flip
        for finding in view.findings
        if finding.point == point.id and finding.record.check == "accuracy"
        for flip in flips(finding.record.evidence.get("examples", [])[:_MOST_FLIPS])
    ]


def floor_of(floor: dict[str, Any], name: str) -> Any:
    """Return what a noise floor has beside the figure `name`; empty where it has nothing.

    A floor of rows that are all equal bit by bit is not a number.
    """
    rows = floor.get("rows")
    if name in _DISTANCES and rows and floor.get("equal_rows") == rows:
        return "bit-identical"
    return floor.get(name, "")


def _scalars(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in figures.items() if not isinstance(v, dict | list | tuple)}
