"""The noise floor: how far rounding alone moves a row, from a run compared with itself.

Where PP=1 and PP=N run the same batches, equal computation gives equal bits. Elsewhere (other
batches, compiled code) sums run in another order, and a row may move by rounding. How far is not
a constant: it is measured, by running the probes at PP=1 again in other batches, and extrapolated
to the largest move that as many rows would show once in a million runs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# The chance, for one comparison, that rounding alone exceeds the tolerance.
FALSE_ALARM = 1e-6
# Moved rows that a fit needs; with fewer the tolerance is the rounding of one layer after another.
_FIT_ROWS = 8
# The distance from 1 to the next number, by dtype: what one rounding can move.
_EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@dataclass(frozen=True)
class Tolerance:
    """Largest distance of a row from its baseline that is allowed, and the reason in words."""

    limit: float
    reason: str


# Bits are asked for: no row may move at all.
BITS = Tolerance(0.0, "equal bits: the same batches give the same sums")


def rounding(dtype: str, layers: int) -> float:
    """Relative move of a row by a rounding of `dtype` in each of `layers`, all one way."""
    return _EPSILON[dtype] * layers


def tolerance(floor: Floats, rows: int, dtype: str, layers: int) -> Tolerance:
    """Tolerance for the distance of `rows` rows from their baseline, relative to its size.

    `floor` holds the distances [n] of rows that rounding alone moved or left where they were (0).
    The logarithms of those that moved are taken for normal; the limit is the quantile that the
    largest of `rows` exceeds with a chance of `FALSE_ALARM` (Bonferroni), and at least the largest
    that was seen. Too few that moved fit nothing: then it is a rounding of the dtype in each of
    `layers`, all in one direction (Higham 2002, 3.1), or what was seen if that is more.
    """
    moved = floor[np.isfinite(floor) & (floor > 0)]
    seen = float(moved.max()) if len(moved) else 0.0
    if len(moved) < _FIT_ROWS:
        least = rounding(dtype, layers)
        return Tolerance(
            max(seen, least),
            f"{len(moved)} of {len(floor)} rows move at PP=1 in other batches, too few to fit: "
            f"one rounding of {dtype} in each of {layers} layers is {least:.2g}",
        )
    from scipy.stats import norm

    logs = np.log(moved)
    z = float(norm.isf(FALSE_ALARM / max(rows, 1)))
    limit = float(np.exp(logs.mean() + z * logs.std(ddof=1)))
    return Tolerance(
        max(seen, limit),
        f"{len(moved)} of {len(floor)} rows move at PP=1 in other batches, by up to {seen:.2g}; "
        f"log-normal, exceeded by chance in 1 of {1 / FALSE_ALARM:.0e} comparisons of {rows} rows",
    )
