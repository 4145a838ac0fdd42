"""Full-vocabulary logits, teacher-forced, row by row: bitwise first, then how far and where."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..capture.record import Capture, LogitTable
from .difference import difference_map
from .finding import Finding, Outcome, Severity, Verdict, judged
from .locate import Row, locate

# Rows compared at a time: bounds memory at 262144 words to about 0.5 GB.
_CHUNK_ROWS = 64

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LogitDistance:
    """How far apart two tables are over their common rows.

    `relative_rms` is the root mean square of the difference over that of the baseline (None where
    the baseline is zero everywhere), `kl` the
    largest KL(baseline || candidate) of a row in nats, `top1` the share of rows with the same
    highest token, `smallest_flip_margin` the least baseline margin between its first and second
    token among rows whose highest token changed (None without a flip).
    """

    rows: int
    equal_rows: int
    max_abs: float
    relative_rms: float | None
    kl: float
    top1: float
    smallest_flip_margin: float | None
    first: Row | None
    not_finite: tuple[Row, ...]


def distance(baseline: LogitTable, candidate: LogitTable) -> LogitDistance:
    """Measure two logit tables over the rows that both hold; at least one row is required."""
    rows = [row for row in baseline.index if row in candidate.index]
    equal, max_abs, square, base_square, kl, agree = 0, 0.0, 0.0, 0.0, 0.0, 0
    first: Row | None = None
    margin: float | None = None
    not_finite: list[Row] = []
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS]
        left = baseline.values[[baseline.index[row] for row in chunk]]
        right = candidate.values[[candidate.index[row] for row in chunk]]
        finite: npt.NDArray[np.bool_] = (np.isfinite(left) & np.isfinite(right)).all(axis=1)
        not_finite += [row for row, fine in zip(chunk, finite, strict=True) if not fine]
        # Bits, not values: -0.0 and 0.0 differ, and NaN equals itself.
        same = (left.view(np.uint32) == right.view(np.uint32)).all(axis=1)
        equal += int(same.sum())
        if first is None and not same.all():
            first = chunk[int(np.argmin(same))]
        a, b = left[finite].astype(np.float64), right[finite].astype(np.float64)
        if not len(a):
            continue
        max_abs = max(max_abs, float(np.abs(a - b).max()))
        square += float(((a - b) ** 2).sum())
        base_square += float((a**2).sum())
        kl = max(kl, float(_kl(a, b).max()))
        flipped = a.argmax(axis=1) != b.argmax(axis=1)
        agree += int((~flipped).sum())
        if flipped.any():
            top = np.sort(a[flipped], axis=1)[:, -2:]
            least = float((top[:, 1] - top[:, 0]).min())
            margin = least if margin is None else min(margin, least)
    return LogitDistance(
        rows=len(rows),
        equal_rows=equal,
        max_abs=max_abs,
        relative_rms=float(np.sqrt(square / base_square)) if base_square else None,
        kl=kl,
        top1=agree / len(rows),
        smallest_flip_margin=margin,
        first=first,
        not_finite=tuple(not_finite),
    )


def _kl(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return KL(softmax(a) || softmax(b)) of each row in nats."""
    log_a = a - a.max(axis=1, keepdims=True)
    log_a -= np.log(np.exp(log_a).sum(axis=1, keepdims=True))
    log_b = b - b.max(axis=1, keepdims=True)
    log_b -= np.log(np.exp(log_b).sum(axis=1, keepdims=True))
    result: npt.NDArray[np.float64] = (np.exp(log_a) * (log_a - log_b)).sum(axis=1)
    return result


def compare_logits(baseline: Capture, candidate: Capture) -> Verdict:
    """Judge `candidate` (PP=N) against `baseline` (PP=1), both whole: bit-identity is asked for.

    The parity profile gives both the same batches, so that equal computation gives equal bits.
    """
    left, right = baseline.logits, candidate.logits
    if not left.index or not right.index:
        side = "baseline" if not left.index else "candidate"
        return Verdict(Outcome.BLOCKED, f"the {side} holds no logits")
    findings: list[Finding] = []
    lost = sorted(set(left.index) ^ set(right.index))
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
    figures: dict[str, Any] = {
        "rows": far.rows,
        "equal_rows": far.equal_rows,
        "max_abs": far.max_abs,
        "relative_rms": far.relative_rms,
        "kl": far.kl,
        "top1": far.top1,
        "smallest_flip_margin": far.smallest_flip_margin,
    }
    reach: dict[str, Any] | None = None
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
    if far.first is not None:
        where = locate(baseline, candidate)
        reach = difference_map(baseline, candidate)
        place = f"; {where.sentence}" if where else ""
        findings.append(
            Finding(
                "LOG001",
                Severity.ERROR,
                f"logits differ in {far.rows - far.equal_rows} of {far.rows} rows: max abs "
                f"{far.max_abs:.3g}, relative RMS {_figure(far.relative_rms)}, top-1 agreement "
                f"{far.top1:.1%}{place}",
                "follow the first layer that differs to what entered it",
                rank=where.stage if where else None,
                layer=where.layer if where else None,
                evidence={
                    **figures,
                    "first_row": _name(far.first),
                    "entered": where.entered if where else {},
                },
            )
        )
    if reach is not None:
        figures["difference"] = reach
    return judged(findings, f"{far.rows} rows bit-identical", **figures)


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}"


def _name(row: Row) -> str:
    return f"{row[0]}@{row[1]}"
