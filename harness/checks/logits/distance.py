"""The distance of two tables of logits, row by row: bits first, then how far. Pure.

How far is measured without what softmax does not see: each row's mean is taken off, and tokens that
both sides mask (minus infinity) are left out.
"""

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...capture.record import LogitTable
from ..layers import Row

# Values compared at a time, 32 MiB as float64: memory does not depend on vocabulary or rows.
_CHUNK_VALUES = 1 << 22
_TOP = 5
# Distances in float32 numbers fall into buckets by their binary digits; the largest has 33.
_BUCKETS = 34

# Figures of the report, beside `ulps`.
_FIGURES = (
    *("rows", "equal_rows", "max_abs", "relative_rms", "kl", "kl_reverse", "top1", "top5"),
    "smallest_flip_margin",
)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TokenFlip:
    """A row whose highest token changed.

    `margin` is how far the baseline's first token was ahead of its second.
    """

    row: Row
    margin: float


@dataclass(frozen=True)
class LogitDistance:
    """Distance of two tables over their common rows.

    `relative_rms` is the root mean square of the difference over that of the baseline (None where
    all tokens of every row are equal), `kl` and `kl_reverse` the largest KL(baseline || candidate)
    and KL(candidate || baseline) of a row in nats, `top1` the share of rows with the same highest
    token, `top5` the mean share of the baseline's five highest tokens that are among the
    candidate's. `ulps` counts values by how many float32 numbers lie between the two: equal, then
    1, 2 to 3, 4 to 7 and so on. Of each row [rows], in the baseline's `order`: `same`, whether all
    bits are equal; `row_rms`, the root mean square of the difference over that of the row;
    `row_max`, the largest difference over the row's largest logit (NaN where it is not finite).
    """

    max_abs: float
    relative_rms: float | None
    kl: float
    kl_reverse: float
    top1: float
    top5: float
    ulps: tuple[int, ...]
    not_finite: tuple[Row, ...]
    flips: tuple[TokenFlip, ...]
    order: tuple[Row, ...]
    same: npt.NDArray[np.bool_]
    row_rms: Floats
    row_max: Floats

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.order)

    @property
    def equal_rows(self) -> int:
        """Number of rows all of whose bits are equal."""
        return int(self.same.sum())

    @property
    def smallest_flip_margin(self) -> float | None:
        """Least margin of a flip, None without one."""
        return min((flip.margin for flip in self.flips), default=None)

    @property
    def in_words(self) -> str:
        """How far the rows are apart, for a message."""
        rms = "undefined" if self.relative_rms is None else f"{self.relative_rms:.3g}"
        return f"max abs {self.max_abs:.3g}, relative RMS {rms}, top-1 agreement {self.top1:.1%}"

    @property
    def figures(self) -> dict[str, Any]:
        """Figures for the report, by name."""
        return {name: getattr(self, name) for name in _FIGURES} | {"ulps": list(self.ulps)}


def distance(baseline: LogitTable, candidate: LogitTable) -> LogitDistance:
    """Measure two logit tables over the rows that both hold; at least one row is required.

    Rows with equal bits cost a comparison of bits alone.
    """
    order = tuple(row for row in baseline.index if row in candidate.index)
    step = max(1, _CHUNK_VALUES // baseline.values.shape[1])
    same, finite = np.zeros(len(order), np.bool_), np.zeros(len(order), np.bool_)
    row_rms, row_max = np.full(len(order), np.nan), np.full(len(order), np.nan)
    max_abs, square, base_square, kl, kl_reverse, agree, shared = (0.0,) * 7
    ulps = np.zeros(_BUCKETS, np.int64)
    flips: list[TokenFlip] = []
    for start in range(0, len(order), step):
        chunk = order[start : start + step]
        span = slice(start, start + len(chunk))
        left = baseline.values[[baseline.index[row] for row in chunk]]
        right = candidate.values[[candidate.index[row] for row in chunk]]
        # Bits, not values: -0.0 and 0.0 differ, and NaN equals itself.
        equal = (left.view(np.uint32) == right.view(np.uint32)).all(axis=1)
        masked = np.isneginf(left) & np.isneginf(right)
        fine = ((np.isfinite(left) & np.isfinite(right)) | masked).all(axis=1)
        same[span], finite[span] = equal, fine
        still = equal & fine
        row_rms[span][still] = row_max[span][still] = 0.0
        base_square += float(np.square(_centred(left[fine], ~masked[fine])).sum())
        ulps[0] += left[still].size
        agree += int(still.sum())
        shared += int(still.sum())
        moved = np.flatnonzero(fine & ~equal)
        if len(moved):
            ulps += _ulp_counts(left[moved], right[moved])
            kept = ~masked[moved]
            a, b = left[moved].astype(np.float64), right[moved].astype(np.float64)
            apart = np.subtract(a, b, out=np.zeros_like(a), where=kept)
            max_abs = max(max_abs, float(np.abs(apart).max()))
            apart, size = _centred(apart, kept), _centred(a, kept)
            square += float(np.square(apart).sum())
            row_rms[span][moved] = _ratio(np.square(apart).sum(axis=1), np.square(size).sum(axis=1))
            row_rms[span][moved] **= 0.5
            row_max[span][moved] = _ratio(np.abs(apart).max(axis=1), np.abs(size).max(axis=1))
            log_a, log_b = _log_softmax(a), _log_softmax(b)
            far = np.subtract(log_a, log_b, out=np.zeros_like(a), where=kept)
            kl = max(kl, float((np.exp(log_a) * far).sum(axis=1).max()))
            kl_reverse = max(kl_reverse, float(-(np.exp(log_b) * far).sum(axis=1).min()))
            shared += float(_shared_tops(a, b).sum())
            top, other = a.argmax(axis=1), b.argmax(axis=1)
            agree += int((top == other).sum())
            for row in np.flatnonzero(top != other):
                margin = float(a[row, top[row]] - np.partition(a[row], -2)[-2])
                flips.append(TokenFlip(chunk[moved[row]], margin))
        _release_pages(baseline, candidate)
    last = int(np.flatnonzero(ulps)[-1]) + 1 if ulps.any() else 0
    return LogitDistance(
        max_abs=max_abs,
        relative_rms=float(np.sqrt(square / base_square)) if base_square else None,
        kl=kl,
        kl_reverse=kl_reverse,
        top1=agree / len(order),
        top5=shared / len(order),
        ulps=tuple(ulps[:last].tolist()),
        not_finite=tuple(row for row, fine in zip(order, finite, strict=True) if not fine),
        flips=tuple(flips),
        order=order,
        same=same,
        row_rms=row_rms,
        row_max=row_max,
    )


def _release_pages(*tables: LogitTable) -> None:
    """Give back the pages that were read from files; a process would else grow by all of them."""
    for table in tables:
        mapped = getattr(table.values, "_mmap", None)
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)


def _centred(values: npt.NDArray[Any], kept: npt.NDArray[np.bool_]) -> Floats:
    """Values less their row's mean, as float64; 0 where they are not kept."""
    values = np.where(kept, values, 0.0).astype(np.float64)
    mean = values.sum(axis=1, keepdims=True) / np.maximum(kept.sum(axis=1, keepdims=True), 1)
    centred: Floats = np.where(kept, values - mean, 0.0)
    return centred


def _ratio(far: Floats, size: Floats) -> Floats:
    """Distances over sizes; 0 for no distance, whatever the size."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.where(far > 0, far / size, 0.0)
    return ratio


def _log_softmax(a: Floats) -> Floats:
    shifted: Floats = a - a.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _shared_tops(a: Floats, b: Floats) -> Floats:
    """For each row the share of the highest tokens of `a` that are among those of `b`."""
    count = min(_TOP, a.shape[1])
    tops = [np.argpartition(side, -count, axis=1)[:, -count:] for side in (a, b)]
    shared: Floats = (tops[0][:, :, None] == tops[1][:, None, :]).any(axis=2).mean(axis=1)
    return shared


def _ulp_counts(
    left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Count values by the binary digits of their distance in float32 numbers: 0, 1, 2-3, 4-7 ..."""
    places = []
    for side in (left, right):
        bits = side.view(np.int32).astype(np.int64)
        places.append(np.where(bits < 0, -(2**31) - bits, bits))  # as the numbers lie in a row
    _, digits = np.frexp(np.abs(places[0] - places[1]).astype(np.float64))
    return np.bincount(digits.ravel(), minlength=_BUCKETS).astype(np.int64)
