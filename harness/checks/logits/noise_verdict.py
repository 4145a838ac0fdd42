"""The verdict where equal bits are not asked for: PP=N beside the floor passes of PP=1."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...capture.record import Capture
from ...engine.settings import Mode, Weights
from ..finding import Finding, Outcome, Severity, Verdict, verdict_of
from .distance import LogitDistance
from .locate import Location, describe, first_moved
from .noise import (
    RESOLUTION,
    ROW_MARGIN,
    SUSPICION,
    Excess,
    Place,
    entry_limit,
    furthest,
    rounding,
    share_moved,
    single_excess,
    smallest_systematic,
    systematic_excess,
)
from .places import layer_places, logit_place

# The share of requests, half of whose rows must be off by more than all rounding, that fails
# without a floor to compare with.
_MOST_REQUESTS = 0.5
# In names of weights of a mixture of experts, whose routing turns a tie into another expert.
_EXPERTS = ("expert", "router")
# What the floor passes of PP=1 are, and where noise is no matter.
_FLOOR = {Mode.EAGER: "in other batches", Mode.COMPILED: "from compiled to eager code"}
_FIX = {
    Mode.EAGER: "run --pp-profile parity or --pp-kernels invariant, where bits decide",
    Mode.COMPILED: "run --pp-mode eager, where bits decide",
}
_SMALL = ", or --pp-dtype float32, where noise is small"


def judge_noise(
    baseline: Capture,
    candidate: Capture,
    far: LogitDistance,
    floors: Sequence[LogitDistance],
) -> Verdict:
    """Compare the moves of rows with those of PP=1 in its floor passes, bulk first.

    The floor of compiled code is PP=1 in eager mode: it rounds in more places than any graph does.

    Systematic faults move most requests; a fault of single rows enters at more than a rounding.
    Where neither shows, the figures have the least systematic fault that would have.
    """
    mode = baseline.cell.mode
    summary = f"{far.rows} rows bit-identical"
    if not floors:
        same = far.equal_rows == far.rows
        return Verdict(Outcome.PASS, summary) if same else _without_floor(baseline, far)
    places = [*layer_places(baseline, candidate), logit_place(far, floors)]
    behind = {min(t.layers) for stage, t in candidate.stages.items() if stage and t.layers}
    weighed = weigh(places, behind, baseline.cell.dtype, has_experts=_has_experts(baseline))
    if weighed.excess is not None:
        fault = _fault(baseline, candidate, far, places, weighed.excess, weighed.figures)
        return verdict_of(Outcome.FAIL, fault, **weighed.figures)
    differ = f"{far.rows - far.equal_rows} of {far.rows} rows differ"
    if weighed.open:
        message = f"{differ}, and {'; '.join(weighed.open)}"
        fix = _FIX[mode] + _SMALL
        undecided = Finding("LOG005", message, fix, Severity.WARNING, evidence=weighed.figures)
        return verdict_of(Outcome.INCONCLUSIVE, undecided, **weighed.figures)
    if far.equal_rows < far.rows:
        least = max(share for share in weighed.seen if share is not None)
        summary = (
            f"{far.equal_rows} of {far.rows} rows bit-identical, the others move as at PP=1 "
            f"{_FLOOR[mode]}; {_least(least)} in every row would have been seen"
        )
    return Verdict(Outcome.PASS, summary, figures=weighed.figures)


@dataclass(frozen=True)
class Weighed:
    """Moves of rows beside the floor passes: an excess, or reasons for which it stays `open`.

    `seen` are the least systematic faults that show: in the logits, then behind each boundary;
    `entry` is the least fault of a single request, where it enters.
    """

    excess: Excess | None
    open: tuple[str, ...]
    seen: tuple[float | None, ...]
    entry: float

    @property
    def figures(self) -> dict[str, Any]:
        """Figures for the report, by name."""
        return {
            "smallest_fault": self.seen[0],
            "smallest_fault_behind": max((s for s in self.seen[1:] if s is not None), default=None),
            "smallest_entry": self.entry,
        }


def weigh(
    places: Sequence[Place], behind: Container[int | None], dtype: str, *, has_experts: bool
) -> Weighed:
    """Weigh the moves at `places`, the last of them the logits, beside those of floor passes.

    `behind` are the layers that follow a boundary. In a mixture of experts a tie that turns moves
    a row as far as a fault, so that a single request proves none.
    """
    limit = entry_limit(places, dtype)
    bulk, single = systematic_excess(places), single_excess(places, limit)
    seen = tuple(
        smallest_systematic(place, len(places))
        for place in (places[-1], *(place for place in places[:-1] if place.layer in behind))
    )
    found = [e for e in (bulk, None if has_experts else single) if e is not None]
    excess = min(found, key=lambda e: _index(places, e)) if found else None
    moved = any(share_moved(place.candidate) or place.unseen for place in places)
    reasons = _undecided(places, seen, single) if moved and excess is None else []
    return Weighed(excess, tuple(reasons), seen, limit)


def largest_floor(floors: Sequence[LogitDistance]) -> LogitDistance:
    """The floor pass that is furthest from the first pass."""
    return max(floors, key=lambda floor: floor.relative_rms or 0.0)


def _without_floor(baseline: Capture, far: LogitDistance) -> Verdict:
    """Judge rows that moved where no floor pass holds their noise, as of compiled code alone.

    Or of kernels that add in any order, where PP=1 happened to repeat.

    Only a bulk that all rounding in one direction cannot explain is a fault; random weights amplify
    rounding, and nothing is known of them here.
    """
    cell = baseline.cell
    layers = sum(len(trace.layers) for trace in baseline.stages.values())
    limit = rounding(cell.dtype, layers)
    moves = logit_place(far, ()).candidate.values()
    beyond = sum(float(np.median(moved)) > limit for moved in moves)
    share = f"{far.rows - far.equal_rows} of {far.rows} rows differ"
    if layers and cell.weights is Weights.CHECKPOINT and beyond > _MOST_REQUESTS * len(moves):
        message = (
            f"logits differ: in {beyond} of {len(moves)} requests most rows are off by more than "
            f"{limit:.2g}, a rounding of {cell.dtype} in each of {layers} layers; "
            f"{far.in_words}"
        )
        fix = f"{_FIX[cell.mode]}, and the first layer that differs is shown"
        return verdict_of(Outcome.FAIL, Finding("LOG001", message, fix, evidence=far.figures))
    undecided = Finding(
        "LOG005",
        f"{share}, {far.in_words}, and no floor pass holds this noise: "
        "PP=1 repeats its own graph and batches",
        _FIX[cell.mode],
        Severity.WARNING,
        evidence=far.figures,
    )
    return verdict_of(Outcome.INCONCLUSIVE, undecided)


def _undecided(
    places: Sequence[Place], seen: Sequence[float | None], single: Excess | None
) -> list[str]:
    """Reasons for which moves without an excess prove nothing."""
    logits = places[-1]
    most = max(furthest(floor) for floor in logits.floors)
    rows = sum(int((far > ROW_MARGIN * most).sum()) for far in logits.candidate.values())
    unseen = sum(place.unseen for place in places)
    why = []
    suspicion = systematic_excess(places, SUSPICION)
    if suspicion is not None:
        why.append(
            f"{len(suspicion.requests)} requests move further than at PP=1, which chance shows in "
            f"{SUSPICION:.0%} of comparisons"
        )
    if single is not None:
        why.append(
            f"{single.requests[0]} is off by {single.far:.2g} at once, as after another expert"
        )
    if not any(share_moved(floor) for place in places for floor in place.floors):
        why.append("PP=1 repeats every row, so that its noise is not known")
    elif rows:
        why.append(f"{rows} of them move {ROW_MARGIN:g} times further than any row of PP=1")
    if unseen:
        why.append("rows moved that no floor pass of PP=1 holds")
    if None in seen:
        why.append(f"{len(logits.candidate)} requests are too few to tell a fault from noise")
    elif (least := max(share for share in seen if share is not None)) > RESOLUTION:
        why.append(f"noise hides {_least(least)} in every row (at most {RESOLUTION:g} may be)")
    return why


def _fault(
    baseline: Capture,
    candidate: Capture,
    far: LogitDistance,
    places: Sequence[Place],
    excess: Excess,
    figures: dict[str, Any],
) -> Finding:
    """LOG001, or LOG006 where a layer shows what noise hides in the logits."""
    index = _index(places, excess)
    place, logits = places[index], places[-1]
    where: Location | None = None
    if excess.layer is not None:
        row = first_moved(baseline, candidate, excess.layer, excess.requests[0])
        where = describe(candidate, excess.layer, row)
    shares = f"{share_moved(place.candidate):.0%} of rows differ there"
    if index:
        shares += f", {share_moved(places[index - 1].candidate):.0%} one layer before"
    shares += f", {max(map(share_moved, place.floors)):.0%} at PP=1 "
    shares += _FLOOR[baseline.cell.mode]
    if excess.chance is None:
        why = f"by {excess.far:.2g} at once, where rounding takes it {excess.limit:.2g}"
    else:
        why = f"in {len(excess.requests)} requests further than at PP=1 (p = {excess.chance:.1g})"
    most = ROW_MARGIN * max(map(furthest, logits.floors))
    shows = furthest(logits.candidate) > most or systematic_excess([logits]) is not None
    start = (
        f"logits differ in {far.rows - far.equal_rows} of {far.rows} rows by more than noise: "
        f"{far.in_words}"
        if shows
        else "a layer is further from PP=1 than rounding takes it, and logits do not show it"
    )
    return Finding(
        "LOG001" if shows else "LOG006",
        f"{start}; {where.sentence if where else 'behind the last layer'}, {why}; {shares}",
        "follow the first layer that differs to what entered it",
        stage=where.stage if where else None,
        layer=excess.layer,
        evidence={
            **far.figures,
            **figures,
            "requests": list(excess.requests),
            "entered": where.entered if where else {},
        },
    )


def _index(places: Sequence[Place], excess: Excess) -> int:
    return next(i for i, place in enumerate(places) if place.layer == excess.layer)


def _has_experts(baseline: Capture) -> bool:
    return any(kind in name for name in baseline.sensitivity.asked for kind in _EXPERTS)


def _least(share: float) -> str:
    if not share:
        return "any fault"
    return f"a fault of {share:.1%}" if share >= 0.001 else f"a fault of {share:.1g}"
