"""One page for people: everything a report holds, in one file that needs no network."""

import base64
import hashlib
import importlib.resources
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..judge import CHECKS
from .charts import difference_chart, difference_rows, timing_chart
from .flips import Flip, flips
from .pipe import pipe
from .schema import Report
from .text import figure, printable
from .view import STATES, PointView, ReportView

_PARTS = Path(__file__).parent / "page"
# Figure -> what it is, with its unit; others are shown by their own names.
_LABELS = {
    "rows": "rows compared",
    "equal_rows": "rows with equal bits",
    "max_abs": "largest difference of a logit",
    "relative_rms": "RMS of the difference over RMS of the logits",
    "kl": "largest KL divergence of a row (nats)",
    "top1": "share of rows with the same highest token",
    "smallest_flip_margin": "smallest margin of a token that flipped",
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
    "filter": "answers read by",
    "flexible_baseline": "accuracy at PP=1, read by flexible-extract",
    "flexible_candidate": "accuracy here, read by flexible-extract",
    "flexible_lost": "questions lost, read by flexible-extract",
    "flexible_won": "questions won, read by flexible-extract",
}
# Evidence that has a place of its own on the page.
_SHOWN_ELSEWHERE = {("accuracy", "examples")}
# Changed answers that a point shows on the page; report.json has all of them.
_MOST_FLIPS = 20
PAGE = "report.html"


def render_page(report: Report) -> str:
    """Return the page of a report of any age, as UTF-8 text below 6 MB.

    Text from models, files and tracebacks is untrusted: every value is made printable and escaped,
    and a content security policy lets no script run but the page's own two, and nothing load.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_PARTS),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "pretty": _pretty, "printable": printable}
    view = ReportView(report)
    scripts = {"plotly": _plotly(), "page": _part("page.js")}
    return environment.get_template("page.html.j2").render(
        view=view,
        checks=CHECKS,
        states=STATES,
        labels=_LABELS,
        pipe=lambda point: pipe(point, view.findings),
        flips=lambda point: _flips(view, point),
        charts=_charts(view),
        difference_rows=difference_rows,
        rows=_matrix_rows(view),
        sizes=sorted({point.record.pp for point in view.points}),
        is_shown_elsewhere=lambda check, name: (check, name) in _SHOWN_ELSEWHERE,
        scalars=_scalars,
        style=_markup(_part("page.css")),
        scripts={name: _markup(text) for name, text in scripts.items()},
        policy=" ".join(f"'{_digest(text)}'" for text in scripts.values()),
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


def _scalars(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in figures.items() if not isinstance(v, dict | list | tuple)}


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _finalize(value: Any) -> Any:
    """Make every text that a template puts out printable, before it is escaped."""
    from markupsafe import Markup

    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def _markup(text: str) -> Any:
    """Mark a script or style that we ship as such; nothing in it may end its element."""
    from markupsafe import Markup

    return Markup(re.sub("</(?=script|style)", "<\\\\/", text, flags=re.IGNORECASE))  # noqa: S704 - shipped with the package


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _plotly() -> str:
    """Return plotly.js as its Python package ships it."""
    source = importlib.resources.files("plotly") / "package_data" / "plotly.min.js"
    return source.read_text(encoding="utf-8")


def _digest(script: str) -> str:
    digest = hashlib.sha256(str(_markup(script)).encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
