"""The places at which rows of a candidate and of the floor passes are compared with PP=1."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...capture.record import Capture
from ..layers import Row, layer_rows, looks_ahead
from .distance import LogitDistance
from .noise import Floats, Moves, Place

# The distance of a row whose bits differ and whose values do not: 0.0 and -0.0, or a constant that
# softmax takes off.
_LEAST = 1e-30

# Distance of each row from the baseline.
_Far = dict[Row, float]


def logit_place(candidate: LogitDistance, floors: Sequence[LogitDistance]) -> Place:
    """Rows of logits: by root mean square or by the largest difference, whichever is more."""
    return _place(None, _logit_moves(candidate), [_logit_moves(floor) for floor in floors])


def layer_places(baseline: Capture, candidate: Capture) -> list[Place]:
    """Outputs of the layers that all passes traced, in travel order; none in compiled mode.

    Without layers that look ahead.
    """
    if not baseline.floor_logits:
        return []
    before, after = _Prints(baseline), _Prints(candidate)
    floors = [_Prints(baseline, number) for number in range(len(baseline.floor_logits))]
    far = {layer: before.far(after, layer) for layer in sorted(before.layers & after.layers)}
    moved = {layer: [row for row, by in rows.items() if by > 0] for layer, rows in far.items()}
    return [
        _place(layer, rows, [before.far(floor, layer) for floor in floors])
        for layer, rows in far.items()
        if not looks_ahead(candidate, layer, moved)
    ]


class _Prints:
    """Fingerprints of a pass by layer: a digest, a norm and a sketch of each row."""

    def __init__(self, capture: Capture, floor: int | None = None) -> None:
        self._rows = {
            kind: layer_rows(capture, kind, floor=floor) for kind in ("digest", "norm", "sketch")
        }
        self.layers = set(self._rows["digest"])

    def far(self, other: "_Prints", layer: int) -> _Far:
        """Estimate how far each row of `other` is from this pass, relative to its size here.

        The mean square of the differences of two sketches estimates that of the rows (digest.py).
        """
        digests = self._rows["digest"][layer], other._rows["digest"].get(layer, {})
        rows = [row for row in digests[0] if row in digests[1]]
        moved = [row for row in rows if digests[0][row] != digests[1][row]]
        apart = self._array("sketch", layer, moved) - other._array("sketch", layer, moved)
        far = np.sqrt(np.square(apart).reshape(len(moved), -1).mean(axis=1)) if moved else []
        norms = self._array("norm", layer, moved)
        size = np.where(norms > 0, norms, 1.0)
        return dict.fromkeys(rows, 0.0) | dict(zip(moved, _at_least(far / size), strict=True))

    def _array(self, kind: str, layer: int, rows: list[Row]) -> npt.NDArray[Any]:
        return np.array([self._rows[kind][layer][row] for row in rows], np.float64)


def _logit_moves(far: LogitDistance) -> _Far:
    largest = np.where(far.same, 0.0, _at_least(np.maximum(far.row_rms, far.row_max)))
    return dict(zip(far.order, largest.tolist(), strict=True))


def _at_least(far: Floats) -> Floats:
    """Distances of rows that moved: never 0, and infinite where they are none."""
    return np.where(np.isnan(far), np.inf, np.maximum(far, _LEAST))


def _place(layer: int | None, candidate: _Far, floors: Sequence[_Far]) -> Place:
    """Compare what all passes hold; `unseen` are rows that moved and that a floor pass lacks."""
    common = [row for row in candidate if all(row in floor for floor in floors)]
    return Place(
        layer,
        _by_request(common, candidate),
        tuple(_by_request(common, floor) for floor in floors),
        unseen=sum(far > 0 for far in candidate.values())
        - sum(candidate[row] > 0 for row in common),
    )


def _by_request(rows: Iterable[Row], far: _Far) -> Moves:
    requests: dict[str, list[float]] = {}
    for row in rows:
        requests.setdefault(row[0], []).append(far[row])
    return {name: np.array(values) for name, values in requests.items()}
