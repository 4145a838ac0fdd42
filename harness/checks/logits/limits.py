"""Limits on the distance of rows from their baseline: equal bits, or the tolerance of rounding."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...capture.record import Capture
from ...engine.settings import Mode, Profile
from .distance import LogitDistance, distance
from .locate import Row
from .noise import BITS, Tolerance, tolerance


@dataclass(frozen=True)
class RowLimits:
    """Tolerances for `row_rms` and `row_max` of a `LogitDistance`.

    `floor` is the distance of PP=1 from its own floor pass, None where it has none.
    """

    rms: Tolerance
    largest: Tolerance
    floor: LogitDistance | None

    @property
    def are_bits(self) -> bool:
        """Whether no row may move at all."""
        return self.rms is BITS

    @property
    def figures(self) -> dict[str, Any]:
        """Figures for the report, by name."""
        figures: dict[str, Any] = {} if self.floor is None else {"floor": self.floor.figures}
        if not self.are_bits:
            figures |= {
                "noise_limit": self.rms.limit,
                "noise_limit_largest": self.largest.limit,
                "noise_reason": self.rms.reason,
            }
        return figures

    def rows_beyond(self, far: LogitDistance) -> list[Row]:
        """Rows that are further apart than is allowed, in order."""
        if self.are_bits:
            beyond = ~far.same
        else:
            with np.errstate(invalid="ignore"):
                beyond = (far.row_rms > self.rms.limit) | (far.row_max > self.largest.limit)
            beyond |= np.isnan(far.row_rms)
        return [row for row, is_beyond in zip(far.order, beyond, strict=True) if is_beyond]


def row_limits(baseline: Capture, rows: int) -> RowLimits:
    """Limits for `rows` rows, from the first floor pass of PP=1 over the same probes."""
    cell = baseline.cell
    floor = distance(baseline.logits, floors[0]) if (floors := baseline.floor_logits) else None
    # The same batches at every PP, and nothing compiled.
    bits_expected = cell.profile is Profile.PARITY and cell.mode is Mode.EAGER
    if bits_expected and (floor is None or floor.equal_rows == floor.rows):
        return RowLimits(BITS, BITS, floor)
    layers = max((len(trace.layers) for trace in baseline.stages.values()), default=1)
    moves = (floor.row_rms, floor.row_max) if floor is not None else (np.zeros(0), np.zeros(0))
    rms, largest = (tolerance(move, rows, cell.dtype, layers) for move in moves)
    return RowLimits(rms, largest, floor)
