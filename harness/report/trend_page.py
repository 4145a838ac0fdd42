"""One page for people from a history: drift, accuracy and seconds over the nights."""

from collections.abc import Callable, Sequence
from typing import Any

from .charts import label
from .drift import MEASURES
from .history import HistoryLine
from .shell import render
from .trend import TrackTrend

# Nights that the charts show: three months, which keeps the page below 6 MB for 100 points.
_NIGHTS = 90
# Characters of a run's time that tell nights apart: to the minute.
_MINUTE = len("2026-01-31T02:17")
# Equal bits have no logarithm; they are drawn here.
_LEAST = 1e-9
_PIXELS = 340
# Colours that the page has for lines; further tracks have the same ones, dashed.
_COLOURS, _DASHES = 6, ("solid", "dash", "longdashdot", "longdash")

_FOLLOWED = frozenset(measure.name for measure in MEASURES)
_Reader = Callable[[HistoryLine], float | None]


def render_trend(found: Sequence[TrackTrend]) -> str:
    """Return the page of a history's tracks; names are untrusted text and are shown as text."""
    current = [one for one in found if one.current]
    return render(
        "trend.html.j2",
        charts=_charts(found),
        current=current,
        gone=[one for one in found if not one.current],
        alarms=[(one, alarm) for one in current for alarm in one.alarms],
        nights=len({line.run for one in found for line in one.lines}),
        shown=_NIGHTS,
        least=_LEAST,
        full_name=full_name,
        levels=levels,
    )


def full_name(one: TrackTrend) -> str:
    """Return what tells a track from every other: its name, release, series and setting."""
    track = one.track
    setting = (f"{name} {value}" for name, value in track.setting)
    return ", ".join((track.name, track.pin, track.series, *setting))


def levels(one: TrackTrend) -> dict[str, tuple[float | None, float | None, float | None]]:
    """Return followed figure -> its values at the anchor, the last green night before, and now."""
    nights = [None if at is None else one.lines[at] for at in (one.anchor, one.green)]
    at_anchor, at_green = ({} if line is None else line.figures for line in nights)
    return {
        name: (at_anchor.get(name), at_green.get(name), value)
        for name, value in one.lines[-1].figures.items()
        if name in _FOLLOWED
    }


def _charts(found: Sequence[TrackTrend]) -> dict[str, Any]:
    """Return the three figures by the id of their element; one without a value is left out."""
    figures = {
        "drift": (
            "relative RMS of the difference from PP=1",
            {"PP=N": lambda line: _drawn(line.figures.get("relative_rms"))},
        ),
        "accuracy": (
            "share of questions answered rightly",
            {
                "PP=N": lambda line: line.figures.get("candidate"),
                "PP=1": lambda line: line.figures.get("baseline"),
            },
        ),
        "seconds": (
            "seconds of engine start, probes and questions",
            {
                "PP=N": lambda line: line.seconds.get("candidate"),
                "PP=1": lambda line: line.seconds.get("baseline"),
            },
        ),
    }
    charts = {}
    for name, (title, readers) in figures.items():
        traces = _traces(found, readers)
        if traces:
            charts[f"{name}-chart"] = _chart(title, traces, logarithmic=name == "drift")
    return charts


def _drawn(value: float | None) -> float | None:
    return None if value is None else max(value, _LEAST)


def _traces(found: Sequence[TrackTrend], readers: dict[str, _Reader]) -> list[dict[str, Any]]:
    """Return a line for each track and side that has a value; both sides have one colour."""
    traces: list[dict[str, Any]] = []
    number = 1  # the first colour is a grey
    for one in found:
        lines = one.lines[-_NIGHTS:]
        mine = []
        for side, read in readers.items():
            nights = [(line.run, value) for line in lines if (value := read(line)) is not None]
            if nights:
                mine.append(_trace(one, side, nights, number))
        number += bool(mine)
        traces += mine
    return traces


def _trace(
    one: TrackTrend, side: str, nights: list[tuple[str, float]], number: int
) -> dict[str, Any]:
    base = side == "PP=1"
    dash = "dot" if base else _DASHES[number // _COLOURS % len(_DASHES)]
    name = label(one.track.name)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{name} PP=1" if base else name,
        "x": [run[:_MINUTE] for run, _ in nights],
        "y": [float(f"{value:.4g}") for _, value in nights],
        "meta": number,
        "line": {"dash": dash, "width": 1 if base else 2},
        "marker": {
            "size": 4 if base else 9 if one.alarms else 6,
            "symbol": "x" if one.alarms else "circle",
        },
        "text": label(full_name(one), 200),
        "hovertemplate": f"%{{text}}<br>{side}, %{{x}}: %{{y}}<extra></extra>",
    }


def _chart(title: str, traces: list[dict[str, Any]], *, logarithmic: bool) -> dict[str, Any]:
    scale = {"type": "log"} if logarithmic else {"rangemode": "tozero"}
    return {
        "data": traces,
        "layout": {
            "height": _PIXELS + 18 * len(traces),
            "margin": {"l": 70, "r": 10, "t": 10, "b": 50},
            "xaxis": {"type": "date"},
            "yaxis": {"title": {"text": title}, "exponentformat": "power", **scale},
            "legend": {"orientation": "h", "y": -0.15, "yanchor": "top", "x": 0},
        },
    }
