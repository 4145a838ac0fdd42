"""Full-vocabulary logits, teacher-forced, row by row: bitwise first, then how far and where."""

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...capture.record import Capture, LogitTable
from ...engine.settings import EngineSettings, Mode, Profile
from ..finding import Finding, Outcome, Severity, Verdict, judged
from .difference import difference_map
from .locate import Location, Row, locate
from .noise import BITS, Tolerance, tolerance

# Values compared at a time, 32 MiB as float64: memory does not depend on vocabulary or rows.
_CHUNK_VALUES = 1 << 22
_TOP = 5
# Pairs of rows that say how far apart unrelated rows are.
_PAIRS = 64
# Distances in float32 numbers fall into buckets by their binary digits; the largest has 33.
_BUCKETS = 34

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Flip:
    """A row whose highest token changed.

    `margin` is how far the baseline's first token was ahead of its second, `share` the same as a
    part of the row's largest logit.
    """

    row: Row
    margin: float
    share: float


@dataclass(frozen=True)
class LogitDistance:
    """How far apart two tables are over their common rows.

    `relative_rms` is the root mean square of the difference over that of the baseline (None where
    the baseline is zero everywhere), `kl` and `kl_reverse` the largest KL(baseline || candidate)
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
    flips: tuple[Flip, ...]
    order: tuple[Row, ...]
    same: npt.NDArray[np.bool_]
    row_rms: Floats
    row_max: Floats

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return len(self.order)

    @property
    def equal_rows(self) -> int:
        """Return the number of rows all of whose bits are equal."""
        return int(self.same.sum())

    @property
    def smallest_flip_margin(self) -> float | None:
        """Return the least margin of a flip, None without one."""
        return min((flip.margin for flip in self.flips), default=None)

    @property
    def figures(self) -> dict[str, Any]:
        """Return what a report shows of it."""
        return {
            "rows": self.rows,
            "equal_rows": self.equal_rows,
            "max_abs": self.max_abs,
            "relative_rms": self.relative_rms,
            "kl": self.kl,
            "kl_reverse": self.kl_reverse,
            "top1": self.top1,
            "top5": self.top5,
            "smallest_flip_margin": self.smallest_flip_margin,
            "ulps": list(self.ulps),
        }


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
    flips: list[Flip] = []
    for start in range(0, len(order), step):
        chunk = order[start : start + step]
        span = slice(start, start + len(chunk))
        left = baseline.values[[baseline.index[row] for row in chunk]]
        right = candidate.values[[candidate.index[row] for row in chunk]]
        # Bits, not values: -0.0 and 0.0 differ, and NaN equals itself.
        equal = (left.view(np.uint32) == right.view(np.uint32)).all(axis=1)
        fine = (np.isfinite(left) & np.isfinite(right)).all(axis=1)
        same[span], finite[span] = equal, fine
        still = equal & fine
        row_rms[span][still] = row_max[span][still] = 0.0
        base_square += float(np.square(left[fine], dtype=np.float64).sum())
        ulps[0] += left[still].size
        agree += int(still.sum())
        shared += int(still.sum())
        moved = np.flatnonzero(fine & ~equal)
        if len(moved):
            ulps += _ulp_counts(left[moved], right[moved])
            a, b = left[moved].astype(np.float64), right[moved].astype(np.float64)
            apart, peak = np.abs(a - b), np.abs(a).max(axis=1)
            largest, squares = apart.max(axis=1), np.square(apart).sum(axis=1)
            max_abs = max(max_abs, float(largest.max()))
            square += float(squares.sum())
            with np.errstate(divide="ignore", invalid="ignore"):
                row_max[span][moved] = np.where(largest > 0, largest / peak, 0.0)
                row_rms[span][moved] = np.where(
                    squares > 0, np.sqrt(squares / np.square(a).sum(axis=1)), 0.0
                )
            log_a, log_b = _log_softmax(a), _log_softmax(b)
            kl = max(kl, float((np.exp(log_a) * (log_a - log_b)).sum(axis=1).max()))
            kl_reverse = max(kl_reverse, float((np.exp(log_b) * (log_b - log_a)).sum(axis=1).max()))
            shared += float(_shared_tops(a, b).sum())
            top, other = a.argmax(axis=1), b.argmax(axis=1)
            agree += int((top == other).sum())
            for row in np.flatnonzero(top != other):
                margin = float(a[row, top[row]] - np.partition(a[row], -2)[-2])
                share = margin / (float(peak[row]) or 1.0)
                flips.append(Flip(chunk[moved[row]], margin, share))
        _let_go(baseline, candidate)
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


def _let_go(*tables: LogitTable) -> None:
    """Give back the pages that were read from files; a process would else grow by all of them."""
    for table in tables:
        mapped = getattr(table.values, "_mmap", None)
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)


def _log_softmax(a: Floats) -> Floats:
    """Return the log-probabilities of each row."""
    shifted: Floats = a - a.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _shared_tops(a: Floats, b: Floats) -> Floats:
    """Return for each row the share of the highest tokens of `a` that are among those of `b`."""
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


@dataclass(frozen=True)
class _Limits:
    """How far rows may be apart (`row_rms` and `row_max` of `LogitDistance`), and from what."""

    rms: Tolerance
    largest: Tolerance
    floor: LogitDistance | None


def compare_logits(baseline: Capture, candidate: Capture) -> Verdict:
    """Judge `candidate` (PP=N) against `baseline` (PP=1), both whole.

    In eager mode the parity profile gives both the same batches, so that equal computation gives
    equal bits: bit-identity is asked for, and whatever PP=1 does not repeat bit by bit in a second
    pass over the same batches is its floor. Elsewhere rows may move as far as rounding moves them
    at PP=1 in other batches.
    """
    left, right = baseline.logits, candidate.logits
    if not left.index or not right.index:
        side = "baseline" if not left.index else "candidate"
        return Verdict(Outcome.BLOCKED, f"the {side} holds no logits")
    findings: list[Finding] = []
    lost = _lost_rows(baseline, candidate)
    if lost:
        findings.append(
            Finding(
                "LOG003",
                Severity.ERROR,
                f"{len(lost)} logit rows are on one side only, first {_name(lost[0])}",
                "both cells must run the same probes; clear the store and run again",
                evidence={"rows": [_name(row) for row in lost[:5]]},
            )
        )
    if left.values.shape[1] != right.values.shape[1]:
        findings.append(
            Finding(
                "LOG003",
                Severity.ERROR,
                f"vocabulary differs: {left.values.shape[1]} against {right.values.shape[1]}",
                "compare cells of one model",
            )
        )
        return judged(findings, "")
    if not set(left.index) & set(right.index):
        return judged(findings, "")
    far = distance(left, right)
    limits = _limits(baseline, far.rows)
    figures = far.figures
    if limits.floor is not None:
        figures["floor"] = limits.floor.figures
    if limits.rms is not BITS:
        figures["noise_limit"] = limits.rms.limit
        figures["noise_limit_largest"] = limits.largest.limit
        figures["noise_reason"] = limits.rms.reason
    if far.not_finite:
        findings.append(
            Finding(
                "LOG002",
                Severity.ERROR,
                f"{len(far.not_finite)} rows hold NaN or Inf, first {_name(far.not_finite[0])}",
                "a stale or uninitialised tensor was read: see the contract findings",
                evidence={**figures},
            )
        )
    beyond = _beyond(far, limits)
    if beyond:
        where = locate(baseline, candidate, bits=limits.rms is BITS)
        place = f"; {where.sentence}" if where else ""
        findings.append(
            Finding(
                "LOG001",
                Severity.ERROR,
                f"logits differ in {len(beyond)} of {far.rows} rows{_more_than(limits)}: max abs "
                f"{far.max_abs:.3g}, relative RMS {_figure(far.relative_rms)}, top-1 agreement "
                f"{far.top1:.1%}{_flips(far, limits)}{place}",
                "follow the first layer that differs to what entered it",
                rank=where.stage if where else None,
                layer=where.layer if where else None,
                evidence={
                    **figures,
                    "first_row": _name(beyond[0]),
                    "flips": [
                        {"row": _name(flip.row), "margin": flip.margin}
                        for flip in sorted(far.flips, key=lambda one: -one.margin)[:5]
                    ],
                    "entered": where.entered if where else {},
                },
            )
        )
        if (reach := difference_map(baseline, candidate)) is not None:
            figures["difference"] = reach
    if findings:
        return judged(findings, "", **figures)
    if far.equal_rows < far.rows and (apart := unrelated(left)) <= limits.rms.limit:
        where = locate(baseline, candidate, bits=False)
        return _by_layers(where, figures) if where else _tells_nothing(far, limits, apart, figures)
    return judged(findings, _agreement(far, limits), **figures)


def unrelated(table: LogitTable) -> float:
    """Return how far rows are apart that have nothing to do with each other: a median.

    Rows of a table are paired with others of it, half the table away.
    """
    rows = list(table.index.items())
    ones, others = {}, {}
    for place in range(0, len(rows), max(1, len(rows) // _PAIRS)):
        name, row = rows[place]
        ones[name] = row
        others[name] = rows[(place + len(rows) // 2) % len(rows)][1]
    pairs = (LogitTable(table.values, index) for index in (ones, others))
    return float(np.median(distance(*pairs).row_rms))


def _by_layers(where: Location, figures: dict[str, Any]) -> Verdict:
    """Return the verdict where a layer shows what rounding has hidden by the time of the logits."""
    finding = Finding(
        "LOG006",
        Severity.ERROR,
        f"a layer's output is further from PP=1 than rounding takes it there: {where.sentence}; "
        "logits cannot show it, since rounding alone takes them as far as unrelated rows",
        "follow the layer to what entered it",
        rank=where.stage,
        layer=where.layer,
        evidence={**figures, "entered": where.entered},
    )
    return judged([finding], "", **figures)


def _tells_nothing(
    far: LogitDistance, limits: "_Limits", apart: float, figures: dict[str, Any]
) -> Verdict:
    """Return the verdict where rounding alone takes rows as far as any two are apart."""
    finding = Finding(
        "LOG005",
        Severity.WARNING,
        f"{far.rows - far.equal_rows} of {far.rows} rows differ, and rounding alone may take a row "
        f"as far ({limits.rms.limit:.2g}) as unrelated rows are apart ({apart:.2g})",
        "use the parity profile, float32, or weights for which rounding stays small",
        evidence={**figures, "unrelated": apart},
    )
    return Verdict(Outcome.INCONCLUSIVE, finding.message, (finding,), figures)


def _lost_rows(baseline: Capture, candidate: Capture) -> list[Row]:
    """Return the rows that one side alone holds, but for those that the other had in its cache."""
    cached = {
        name: max(probes[name].cached for probes in (baseline.probes, candidate.probes))
        for name in set(baseline.probes) & set(candidate.probes)
    }
    apart = set(baseline.logits.index) ^ set(candidate.logits.index)
    return sorted(row for row in apart if row[1] >= cached.get(row[0], 0))


def _limits(baseline: Capture, rows: int) -> _Limits:
    """Return how far rows may be apart, from what PP=1 gave the second time."""
    cell = baseline.cell
    again = baseline.second_logits
    floor = distance(baseline.logits, again) if again.index else None
    repeats = floor is None or floor.equal_rows == floor.rows
    if bits_expected(cell) and repeats:
        return _Limits(BITS, BITS, floor)
    layers = max((len(trace.layers) for trace in baseline.stages.values()), default=1)
    moves = (floor.row_rms, floor.row_max) if floor is not None else (np.zeros(0), np.zeros(0))
    rms, largest = (tolerance(move, rows, cell.dtype, layers) for move in moves)
    return _Limits(rms, largest, floor)


def bits_expected(cell: EngineSettings) -> bool:
    """Whether a cell runs the same batches at every PP, and nothing compiled."""
    return cell.profile is Profile.PARITY and cell.mode is Mode.EAGER


def _beyond(far: LogitDistance, limits: _Limits) -> list[Row]:
    """Return the rows that are further apart than they may be, in order."""
    if limits.rms is BITS:
        return [row for row, same in zip(far.order, far.same, strict=True) if not same]
    with np.errstate(invalid="ignore"):
        past = (far.row_rms > limits.rms.limit) | (far.row_max > limits.largest.limit)
    past |= np.isnan(far.row_rms)
    return [row for row, one in zip(far.order, past, strict=True) if one]


def _more_than(limits: _Limits) -> str:
    if limits.rms is BITS:
        return ""
    return f" by more than noise (relative RMS {limits.rms.limit:.2g})"


def _flips(far: LogitDistance, limits: _Limits) -> str:
    """Say of the rows whose highest token changed whether rounding could have done it."""
    if not far.flips:
        return ""
    real = [flip for flip in far.flips if flip.share > 2 * limits.largest.limit]
    return f" ({len(real)} of {len(far.flips)} flips are no ties)"


def _agreement(far: LogitDistance, limits: _Limits) -> str:
    if far.equal_rows == far.rows:
        return f"{far.rows} rows bit-identical"
    return (
        f"{far.equal_rows} of {far.rows} rows bit-identical, the others within noise: relative RMS "
        f"up to {np.nanmax(far.row_rms):.2g} of {limits.rms.limit:.2g}"
    )


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}"


def _name(row: Row) -> str:
    return f"{row[0]}@{row[1]}"
