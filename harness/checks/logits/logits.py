"""The logits check: full-vocabulary logits, teacher-forced, at PP=N compared with PP=1."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ...capture.record import Capture
from ...engine.settings import DRAFTS, Kernels, Mode
from ..bits import adds_in_any_order, bits_decide
from ..finding import Finding, Outcome, Severity, Verdict, judged, verdict_of
from ..registry import Check, Comparison, Figure, Need, register
from .distance import LogitDistance, distance
from .layer_map import difference_map
from .locate import locate
from .noise_verdict import judge_noise, largest_floor
from .returned import compare_returned, compare_undrafted, draft_figures
from .rows import missing_rows, row_name
from .sensitivity import trusted

# How many flips a finding's evidence names.
_EXAMPLES = 5


def compare_logits(baseline: Capture, candidate: Capture, beside: Capture | None = None) -> Verdict:
    """Judge `candidate` (PP=N) against `baseline` (PP=1), both whole.

    Where both ran the same batches in eager mode, equal computation gives equal bits: every row
    that PP=1 repeats must have them, behind each layer too. Elsewhere, and for rows that PP=1 does
    not repeat, rows may move as they move from one pass of PP=1 to another. PP=1 compiled repeats
    its own graph: there they may move as far as it is from PP=1 in eager mode, `beside` it. Where
    tokens are drafted, PP=1 without drafts is beside it, and says what drafting alone has moved.
    Kernels that add in any order have no bits to ask for, and no floor where PP=1 happened to
    repeat.
    """
    before, after = baseline.logits, candidate.logits
    if not before.index or not after.index:
        side = "baseline" if not before.index else "candidate"
        return Verdict(Outcome.BLOCKED, f"the {side} holds no logits")
    widths = before.values.shape[1], after.values.shape[1]
    if widths[0] != widths[1]:
        message = f"vocabulary differs: {widths[0]} against {widths[1]}"
        return verdict_of(Outcome.FAIL, Finding("LOG003", message, "compare cells of one model"))
    gap = missing_rows(baseline, candidate)
    if gap is not None:
        return gap
    far = distance(before, after)
    passes = [distance(before, floor) for floor in baseline.floor_logits]
    apart = distance(before, beside.logits) if beside and not beside.failure else None
    floors = passes
    any_order = adds_in_any_order(baseline.cell)
    if baseline.cell.mode is Mode.COMPILED:
        floors = [apart] if apart else []
    if baseline.cell.mode is Mode.COMPILED or any_order:
        floors = [floor for floor in floors if floor.equal_rows < floor.rows]
    figures = far.figures | draft_figures(candidate)
    undrafted = apart if baseline.cell.asks(DRAFTS) else None
    if undrafted:
        figures["undrafted"] = undrafted.figures
    if floors:
        figures |= {"floor": largest_floor(floors).figures, "floor_passes": len(floors)}
    findings: list[Finding] = []
    if far.not_finite:
        findings.append(
            Finding(
                "LOG002",
                f"{len(far.not_finite)} rows hold NaN or Inf, first {row_name(far.not_finite[0])}",
                "a stale or uninitialised tensor was read: see the contract findings",
                evidence={**figures},
            )
        )
    noise = Verdict(Outcome.PASS, f"{far.rows} rows bit-identical")
    repeated = _repeated(far, passes)
    bits = bits_decide(baseline) and not any_order
    if bits:
        findings += _bit_findings(baseline, candidate, far, repeated, figures)
    if not findings and not (bits and far.same.all()):
        noise = judge_noise(baseline, candidate, far, floors)
    if not repeated.all() and (bits or baseline.cell.kernels is Kernels.INVARIANT):
        findings.append(_unrepeated(far, repeated))
    if bits:
        findings += compare_returned(baseline, candidate)
    if undrafted:
        findings += compare_undrafted(undrafted)
    figures |= noise.figures
    verdict = judged([*noise.findings, *findings], noise.summary, **figures)
    if verdict.outcome is Outcome.PASS:
        return replace(verdict, outcome=noise.outcome)
    reach = difference_map(baseline, candidate)
    return replace(verdict, figures=figures | {"difference": reach}) if reach else verdict


def _judge(pair: Comparison) -> Verdict:
    verdict = compare_logits(pair.baseline, pair.candidate, pair.beside)
    return trusted(verdict, pair)


_distance = partial(Figure, is_distance=True)
LOGITS = register(
    Check(
        name="logits",
        order=30,
        needs=Need.CANDIDATE | Need.BASELINE | Need.BESIDE,
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
            Figure("smallest_fault", "smallest fault of every row that would have been seen"),
            Figure("smallest_fault_behind", "the same behind each boundary"),
            Figure("smallest_entry", "smallest fault of a single row, where it enters"),
            Figure("floor", "noise floor: PP=1 compared with itself"),
            Figure("floor_passes", "floor passes, of which the furthest is shown"),
            Figure("drafted", "tokens drafted"),
            Figure("accepted", "drafted tokens that were taken"),
            Figure("undrafted", "PP=1 compared with PP=1 without drafts"),
        ),
        trend="relative_rms",
        output="logits",
    )
)


def _repeated(far: LogitDistance, floors: Sequence[LogitDistance]) -> npt.NDArray[np.bool_]:
    """Whether PP=1 repeats each row of `far`, as far as its floor passes hold it."""
    moved = {
        row
        for floor in floors
        for row, same in zip(floor.order, floor.same, strict=True)
        if not same
    }
    return np.array([row not in moved for row in far.order], np.bool_)


def _bit_findings(
    baseline: Capture,
    candidate: Capture,
    far: LogitDistance,
    repeated: npt.NDArray[np.bool_],
    figures: dict[str, Any],
) -> list[Finding]:
    """LOG001 for rows whose bits PP=1 repeats and PP=N has not, LOG006 if only layers show it."""
    differ = np.flatnonzero(~far.same & repeated)
    where = locate(baseline, candidate)
    if not len(differ) and where is None:
        return []
    widest = sorted(far.flips, key=lambda flip: -flip.margin)[:_EXAMPLES]
    evidence = {
        **figures,
        "flips": [{"row": row_name(flip.row), "margin": flip.margin} for flip in widest],
        "entered": where.entered if where else {},
    }
    code = "LOG006"
    message = "logits have the bits of PP=1 and a layer has not"
    if len(differ):
        code = "LOG001"
        flips = f" ({len(far.flips)} tokens flip)" if far.flips else ""
        message = f"logits differ in {len(differ)} of {far.rows} rows: {far.in_words}{flips}"
        evidence["first_row"] = row_name(far.order[differ[0]])
    return [
        Finding(
            code,
            message + (f"; {where.sentence}" if where else ""),
            "follow the first layer that differs to what entered it",
            stage=where.stage if where else None,
            layer=where.layer if where else None,
            evidence=evidence,
        )
    ]


def _unrepeated(far: LogitDistance, repeated: npt.NDArray[np.bool_]) -> Finding:
    rows = [row_name(far.order[index]) for index in np.flatnonzero(~repeated)]
    return Finding(
        "LOG007",
        f"PP=1 does not repeat {len(rows)} of {far.rows} rows on these kernels, first {rows[0]}",
        "look for a kernel that adds in no fixed order (in other batches: that is not invariant); "
        "those rows are judged by noise",
        Severity.WARNING,
        evidence={"rows": rows[:_EXAMPLES]},
    )
