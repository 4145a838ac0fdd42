"""The logits check: full-vocabulary logits, teacher-forced, at PP=N compared with PP=1."""

from functools import partial
from typing import Any

import numpy as np

from ...capture.record import Capture
from ..finding import Finding, Outcome, Severity, Verdict, judged, verdict_of
from ..registry import Check, Comparison, Figure, Need, register
from .distance import LogitDistance, distance, unrelated_distance
from .layer_map import difference_map
from .limits import RowLimits, row_limits
from .locate import Location, Row, locate
from .sensitivity import trusted

# How many rows and flips a finding's evidence names.
_EXAMPLES = 5


def compare_logits(baseline: Capture, candidate: Capture) -> Verdict:
    """Judge `candidate` (PP=N) against `baseline` (PP=1), both whole.

    In eager mode the parity profile gives both the same batches, so that equal computation gives
    equal bits: bit-identity is asked for, and whatever PP=1 does not repeat bit by bit in a second
    pass over the same batches is its floor. Elsewhere rows may move as far as rounding moves them
    at PP=1 in other batches.
    """
    before, after = baseline.logits, candidate.logits
    if not before.index or not after.index:
        side = "baseline" if not before.index else "candidate"
        return Verdict(Outcome.BLOCKED, f"the {side} holds no logits")
    findings = _lost_rows(baseline, candidate)
    widths = before.values.shape[1], after.values.shape[1]
    if widths[0] != widths[1]:
        message = f"vocabulary differs: {widths[0]} against {widths[1]}"
        findings.append(Finding("LOG003", message, "compare cells of one model"))
        return judged(findings, "")
    if not set(before.index) & set(after.index):
        return judged(findings, "")
    far = distance(before, after)
    limits = row_limits(baseline, far.rows)
    figures = far.figures | limits.figures
    if far.not_finite:
        findings.append(
            Finding(
                "LOG002",
                f"{len(far.not_finite)} rows hold NaN or Inf, first {_name(far.not_finite[0])}",
                "a stale or uninitialised tensor was read: see the contract findings",
                evidence={**figures},
            )
        )
    beyond = limits.rows_beyond(far)
    if beyond:
        where = locate(baseline, candidate, bits=limits.are_bits)
        findings.append(_difference(far, limits, beyond, where, figures))
        if (reach := difference_map(baseline, candidate)) is not None:
            figures["difference"] = reach
    if findings:
        return judged(findings, "", **figures)
    if far.equal_rows == far.rows:
        return judged([], f"{far.rows} rows bit-identical", **figures)
    unrelated = unrelated_distance(before)
    if unrelated <= limits.rms.limit:
        where = locate(baseline, candidate, bits=False)
        if where is None:
            return _undecided(far, limits, unrelated, figures)
        return judged([_beyond_in_a_layer(where, figures)], "", **figures)
    return judged(
        [],
        f"{far.equal_rows} of {far.rows} rows bit-identical, the others within noise: relative RMS "
        f"up to {np.nanmax(far.row_rms):.2g} of {limits.rms.limit:.2g}",
        **figures,
    )


def _judge(pair: Comparison) -> Verdict:
    return trusted(compare_logits(pair.baseline, pair.candidate), pair.baseline, pair.candidate)


_distance = partial(Figure, is_distance=True)
LOGITS = register(
    Check(
        name="logits",
        order=30,
        needs=Need.CANDIDATE | Need.BASELINE,
        judge=_judge,
        figures=(
            Figure("rows", "rows compared"),
            Figure("equal_rows", "rows with equal bits"),
            _distance("max_abs", "largest difference of a logit"),
            _distance("relative_rms", "RMS of the difference over RMS of the logits"),
            _distance("kl", "largest KL divergence of a row", "nats"),
            _distance("kl_reverse", "largest KL divergence of a row, the other way", "nats"),
            _distance("top1", "share of rows with the same highest token"),
            _distance("top5", "share of the five highest tokens that stay among them"),
            _distance("smallest_flip_margin", "smallest margin of a token that flipped"),
            Figure("noise_limit", "largest relative RMS of a row that rounding explains"),
            Figure(
                "noise_limit_largest",
                "largest difference over the row's largest logit that rounding explains",
            ),
            Figure("noise_reason", "because"),
            Figure("floor", "noise floor: PP=1 compared with itself"),
        ),
        trend="relative_rms",
        output="logits",
    )
)


def _lost_rows(baseline: Capture, candidate: Capture) -> list[Finding]:
    """LOG003 for the rows that only one side holds, but for those that the other had cached."""
    cached = {
        name: max(probes[name].cached for probes in (baseline.probes, candidate.probes))
        for name in set(baseline.probes) & set(candidate.probes)
    }
    apart = set(baseline.logits.index) ^ set(candidate.logits.index)
    lost = sorted(row for row in apart if row[1] >= cached.get(row[0], 0))
    if not lost:
        return []
    return [
        Finding(
            "LOG003",
            f"{len(lost)} logit rows are on one side only, first {_name(lost[0])}",
            "both cells must run the same probes; clear the store and run again",
            evidence={"rows": [_name(row) for row in lost[:_EXAMPLES]]},
        )
    ]


def _difference(
    far: LogitDistance,
    limits: RowLimits,
    beyond: list[Row],
    where: Location | None,
    figures: dict[str, Any],
) -> Finding:
    """LOG001: rows are further apart than is allowed."""
    noise = "" if limits.are_bits else f" by more than noise (relative RMS {limits.rms.limit:.2g})"
    rms = "undefined" if far.relative_rms is None else f"{far.relative_rms:.3g}"
    # Flips of the highest token that rounding could not have done.
    real = sum(flip.share > 2 * limits.largest.limit for flip in far.flips)
    flips = f" ({real} of {len(far.flips)} flips are no ties)" if far.flips else ""
    widest = sorted(far.flips, key=lambda flip: -flip.margin)[:_EXAMPLES]
    return Finding(
        "LOG001",
        f"logits differ in {len(beyond)} of {far.rows} rows{noise}: max abs {far.max_abs:.3g}, "
        f"relative RMS {rms}, top-1 agreement {far.top1:.1%}{flips}"
        + (f"; {where.sentence}" if where else ""),
        "follow the first layer that differs to what entered it",
        stage=where.stage if where else None,
        layer=where.layer if where else None,
        evidence={
            **figures,
            "first_row": _name(beyond[0]),
            "flips": [{"row": _name(flip.row), "margin": flip.margin} for flip in widest],
            "entered": where.entered if where else {},
        },
    )


def _beyond_in_a_layer(where: Location, figures: dict[str, Any]) -> Finding:
    """LOG006: a layer shows what rounding has hidden by the time of the logits."""
    return Finding(
        "LOG006",
        f"a layer's output is further from PP=1 than rounding takes it there: {where.sentence}; "
        "logits cannot show it, since rounding alone takes them as far as unrelated rows",
        "follow the layer to what entered it",
        stage=where.stage,
        layer=where.layer,
        evidence={**figures, "entered": where.entered},
    )


def _undecided(
    far: LogitDistance, limits: RowLimits, unrelated: float, figures: dict[str, Any]
) -> Verdict:
    """LOG005: rounding alone takes rows as far as any two are apart."""
    finding = Finding(
        "LOG005",
        f"{far.rows - far.equal_rows} of {far.rows} rows differ, and rounding alone may take a row "
        f"as far ({limits.rms.limit:.2g}) as unrelated rows are apart ({unrelated:.2g})",
        "use the parity profile, float32, or weights for which rounding stays small",
        Severity.WARNING,
        evidence={**figures, "unrelated": unrelated},
    )
    return verdict_of(Outcome.INCONCLUSIVE, finding, **figures)


def _name(row: Row) -> str:
    return f"{row[0]}@{row[1]}"
