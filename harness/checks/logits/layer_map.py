"""The reach of a difference by layer and position, small enough to be drawn."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from ...capture.record import Capture
from ..layers import Row, layer_rows, stage_of

# Most columns of the map. Positions of a request share one where there are more; each request has
# a column at least.
_COLUMNS = 160


def difference_map(baseline: Capture, candidate: Capture) -> dict[str, Any] | None:
    """Map of the outputs that differ between two captures, None if no layer of any row does.

    Fields: `layers`, those that both captures hold; `stages`, the stage of each of them in
    `candidate`; `columns`, each `[request, first position, count]` in the order in which the rows
    ran; `changed`, [layers][columns], the share (0 to 1) of a column's rows whose output differs in
    any bit; `norm`, [layers][columns], the largest |a - b| / a of their outputs' Euclidean norms
    (None where none is finite): 0 where no bit differs, else a lower bound of how far the rows are
    apart, relative to a.
    """
    digests = layer_rows(baseline, "digest"), layer_rows(candidate, "digest")
    norms = layer_rows(baseline, "norm"), layer_rows(candidate, "norm")
    layers = sorted(set(digests[0]) & set(digests[1]))
    rows = [row for row in digests[0][layers[0]] if row in digests[1][layers[0]]] if layers else []
    columns = _columns(rows)
    changed, norm = [], []
    for layer in layers:
        before, after = digests[0][layer], digests[1][layer]
        moved = [[row for row in column if before[row] != after[row]] for column in columns]
        changed.append(
            [round(len(rows) / len(column), 3) for rows, column in zip(moved, columns, strict=True)]
        )
        norm.append([_norm_change(rows, norms[0][layer], norms[1][layer]) for rows in moved])
    if not any(share for line in changed for share in line):
        return None
    return {
        "layers": layers,
        "stages": [stage_of(candidate, layer) for layer in layers],
        "columns": [[*column[0], len(column)] for column in columns],
        "changed": changed,
        "norm": norm,
    }


def _columns(rows: list[Row]) -> list[list[Row]]:
    """Group the rows of each request by neighbouring positions, into `_COLUMNS` where it can be."""
    requests: dict[str, list[Row]] = {}
    for row in rows:
        requests.setdefault(row[0], []).append(row)
    width = 1
    while sum(-(-len(group) // width) for group in requests.values()) > max(
        _COLUMNS, len(requests)
    ):
        width += 1
    return [
        sorted(group)[start : start + width]
        for group in requests.values()
        for start in range(0, len(group), width)
    ]


def _norm_change(
    moved: list[Row], before: Mapping[Row, float], after: Mapping[Row, float]
) -> float | None:
    """Largest relative change of the norm of rows that moved, None where none is finite."""
    if not moved:
        return 0.0
    changes = [abs(before[row] - after[row]) / before[row] for row in moved if before[row] > 0]
    finite = [change for change in changes if isfinite(change)]
    return float(f"{max(finite):.3g}") if finite else None
