"""Figures in plotly's JSON form; the page draws them and gives them its colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Any

from .schema import CellRecord
from .text import figure, one_line

# Smallest relative change that the colours tell apart; a change of bits that leaves the norm has
# this colour too.
_LEAST = 1e-7
_ROW_PIXELS, _FRAME_PIXELS = 26, 110
# Rows of full height and labels; more are drawn lower.
_MOST_ROWS = 24
# Characters of a name below the map, and the most names that have room there.
_TICK, _MOST_NAMES = 20, 40
# Share of the whole time from which on a bar has room for the name of its cell.
_LABELLED = 0.08
_MONO = {"family": "monospace", "size": 12}
_NO_GRID = {"showgrid": False, "zeroline": False}


def difference_chart(difference: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the logits figure `difference` as a heat map: layers down, positions across."""
    columns, layers = difference["columns"], difference["layers"]
    lines = list(zip(layers, difference["changed"], difference["norm"], strict=True))
    heat = [
        [
            log10(max(apart or 0.0, _LEAST)) if share else None
            for share, apart in zip(changed, norm, strict=True)
        ]
        for _, changed, norm in lines
    ]
    hover = [
        [_cell_text(layer, *cell) for cell in zip(columns, changed, norm, strict=True)]
        for layer, changed, norm in lines
    ]
    starts = _starts([name for name, _, _ in columns])
    named = _spread(_starts([name.partition("/")[0] for name, _, _ in columns]), len(columns))
    stages = _starts(difference["stages"])
    known = [value for line in heat for value in line if value is not None]
    low, high = floor(min(known)), max(ceil(max(known)), floor(min(known)) + 1)
    every = -(-len(layers) // _MOST_ROWS)
    return {
        "data": [
            {
                "type": "heatmap",
                "z": heat,
                "text": hover,
                "hoverinfo": "text",
                "xgap": 1 if len(columns) < 100 else 0,
                "ygap": 1,
                "zmin": low,
                "zmax": high,
                "colorbar": {
                    "title": {"text": "change of norm", "side": "right"},
                    "tickvals": list(range(low, high + 1)),
                    "ticktext": [f"{10.0**power:g}" for power in range(low, high + 1)],
                    "thickness": 12,
                },
            }
        ],
        "layout": {
            "height": _FRAME_PIXELS + _ROW_PIXELS * max(4, min(len(layers), _MOST_ROWS)),
            "margin": {"l": 90, "r": 10, "t": 10, "b": 70},
            "xaxis": {
                "range": [-0.5, len(columns) - 0.5],
                "tickvals": [start for start, _ in named],
                "ticktext": [label(name, _TICK) for _, name in named],
                "tickangle": 40,
                **_NO_GRID,
            },
            "yaxis": {
                "range": [len(layers) - 0.5, -0.5],
                "tickvals": list(range(0, len(layers), every)),
                "ticktext": [f"layer {layer}" for layer in layers[::every]],
                **_NO_GRID,
            },
            "shapes": [_line("stage", "y", "x", start - 0.5) for start, _ in stages[1:]]
            + [_line("request", "x", "y", start - 0.5) for start, _ in starts[1:]],
            "annotations": [
                {
                    "text": f"stage {stage}",
                    "xref": "paper",
                    "x": 1,
                    "xanchor": "right",
                    "y": start - 0.5,
                    "yanchor": "top",
                    "showarrow": False,
                    "font": _MONO,
                }
                for start, stage in stages
            ],
        },
    }


@dataclass(frozen=True)
class LayerDifference:
    """A layer of the map: how many columns differ, by how much at most, and the first of them."""

    layer: int
    stage: int
    differing: int
    largest: float | None
    first: str


def difference_rows(difference: Mapping[str, Any]) -> list[LayerDifference]:
    """List the heat map in numbers, layer by layer."""
    rows = []
    for layer, stage, changed, norm in zip(
        *(difference[name] for name in ("layers", "stages", "changed", "norm")), strict=True
    ):
        differing = [column for column, share in enumerate(changed) if share]
        changes = [norm[column] for column in differing if norm[column] is not None]
        name, position, _ = difference["columns"][differing[0]] if differing else ("", "", 0)
        first = f"{name} position {position}" if differing else ""
        largest = max(changes, default=None)
        rows.append(LayerDifference(layer, stage, len(differing), largest, first))
    return rows


def timing_chart(cells: Sequence[CellRecord]) -> dict[str, Any] | None:
    """Draw a Gantt chart of the engines that this run started, a row for each device.

    A report from before the phases had times of their own gives a row for each engine, its phases
    end to end. None if no engine was started.
    """
    fresh = [cell for cell in cells if cell.fresh]
    timed = [cell for cell in fresh if cell.began is not None and cell.phases]
    bars = _by_device(timed) if timed else _by_cell(fresh)
    if not bars:
        return None
    rows = list(dict.fromkeys(row for row, *_ in bars))
    phases = list(dict.fromkeys(phase for _, phase, *_ in bars))
    room = max(end for *_, end, _ in bars) * _LABELLED
    return {
        "data": [_trace(phase, [bar for bar in bars if bar[1] == phase], room) for phase in phases],
        "layout": {
            "barmode": "overlay",
            "height": _FRAME_PIXELS + _ROW_PIXELS * max(3, len(rows)),
            "margin": {"l": 150, "r": 10, "t": 10, "b": 50},
            "xaxis": {"title": {"text": "seconds"}, "rangemode": "tozero", "zeroline": False},
            "yaxis": {
                "type": "category",
                "categoryarray": rows,
                "autorange": "reversed",
                "automargin": True,
            },
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        },
    }


# A bar: row, phase, start and end in seconds, name of the cell.
_Bar = tuple[str, str, float, float, str]


def _by_device(cells: Sequence[CellRecord]) -> list[_Bar]:
    began = [cell.began or 0.0 for cell in cells]
    return [
        (f"device {device}", phase, at - min(began) + start, at - min(began) + end, cell.id)
        for device in sorted({device for cell in cells for device in cell.devices})
        for cell, at in zip(cells, began, strict=True)
        if device in cell.devices
        for phase, (start, end) in cell.phases.items()
    ]


def _by_cell(cells: Sequence[CellRecord]) -> list[_Bar]:
    bars = []
    for cell in cells:
        start = 0.0
        for phase, seconds in cell.seconds.items():
            if phase != "total":
                bars.append((cell.id, phase, start, start + seconds, cell.id))
                start += seconds
    return bars


def _trace(phase: str, bars: list[_Bar], room: float) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": label(phase),
        "y": [label(row) for row, *_ in bars],
        "base": [start for _, _, start, _, _ in bars],
        "x": [end - start for _, _, start, end, _ in bars],
        "text": [
            label(cell) if row != cell and end - start > room else ""
            for row, _, start, end, cell in bars
        ],
        "textposition": "inside",
        "insidetextanchor": "start",
        "hovertext": [
            f"{label(cell)}<br>{label(phase)}: {end - start:.1f} s"
            for _, _, start, end, cell in bars
        ],
        "hoverinfo": "text",
    }


def _cell_text(layer: int, column: list[Any], share: float, apart: float | None) -> str:
    name, first, count = column
    at = f"position {first}" if count == 1 else f"positions {first} to {first + count - 1}"
    differs = f"{share:.0%} of the rows differ, norm by {figure(apart)}"
    what = differs if share else "equal bits"
    return f"layer {layer}, {label(name)}, {at}<br>{what}"


def _starts(values: Sequence[Any]) -> list[tuple[int, Any]]:
    """Places where a sequence takes another value, and that value."""
    return [(at, value) for at, value in enumerate(values) if at == 0 or value != values[at - 1]]


def _spread(starts: list[tuple[int, Any]], columns: int) -> list[tuple[int, Any]]:
    """Leave out the starts that have no room for a name beside the one before."""
    apart = columns / _MOST_NAMES
    kept: list[tuple[int, Any]] = []
    for start, name in starts:
        if not kept or start - kept[-1][0] >= apart:
            kept.append((start, name))
    return kept


def _line(name: str, axis: str, across: str, at: float) -> dict[str, Any]:
    """Draw a line across the whole figure, from a place of an axis, between things of one name."""
    ends = {f"{across}ref": "paper", f"{across}0": 0, f"{across}1": 1}
    return {"type": "line", **ends, f"{axis}0": at, f"{axis}1": at, "name": name}


def label(text: str, width: int = 80) -> str:
    """Escape text so that plotly, which reads some HTML, shows it as it is."""
    return escape(one_line(text, width))
