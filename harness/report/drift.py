"""Nights in a row: the last one against the last green one and against a fixed anchor.

A change that stays within its tolerance every night is never a jump. Against the anchor, which does
not move, such changes add up until they are a drift.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from ..plan.options import DEFAULT_MARGIN


@dataclass(frozen=True)
class Night:
    """What one run left of one check of one point.

    `good` is false where the check failed, was blocked, or passed against an expectation; `green`
    is true only for a pass. `inputs` is the key of the capture, which covers everything that can
    change its outputs; `outputs` maps what it holds (logits, answers) to a digest, and is empty
    where this run started no engine. `figures` are the numbers behind the verdict.
    """

    run: str
    time: float
    good: bool
    green: bool
    summary: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    inputs: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """A figure that is followed, and the worsening that is let pass.

    A value may be worse than its reference by `share` of the reference or by `floor`, whichever is
    more. `worse` is +1 where a higher value is worse, -1 where a lower one is. `window` nights are
    taken together, as their median: more than one for what a busy machine makes noisy.
    """

    name: str
    worse: int
    share: float = 0.0
    floor: float = 0.0
    window: int = 1


# Distances from PP=1 may grow by half; a share of rows or questions may fall by the margin of the
# accuracy check. Time is a ratio to PP=1 of the same run, so that a slow machine slows both; half
# as much again over three nights is no noise.
MEASURES = (
    Measure("relative_rms", worse=+1, share=0.5, floor=1e-6),
    Measure("kl", worse=+1, share=0.5, floor=1e-6),
    Measure("top1", worse=-1, floor=DEFAULT_MARGIN),
    Measure("candidate", worse=-1, floor=DEFAULT_MARGIN),
    Measure("baseline", worse=-1, floor=DEFAULT_MARGIN),
    Measure("seconds_ratio", worse=+1, share=0.5, window=3),
)


@dataclass(frozen=True)
class Alarm:
    """Why a night is not as good as it should be: a code of docs/report.md and a sentence."""

    code: str
    message: str


def judge_nights(nights: Sequence[Night], anchor: float | None = None) -> tuple[Alarm, ...]:
    """Judge the last of `nights` (oldest first) of one check of one point.

    Levels are held against the anchor: the first green night, or, where a person accepted the
    levels of `anchor` (seconds since the epoch), the last night until then.
    """
    if not nights:
        return ()
    last, before = nights[-1], nights[:-1]
    alarms = []
    if not last.good:
        alarms.append(Alarm("TRD001", f"not green: {last.summary}"))
    alarms += _unsteady(last, before)
    green = last_green_of(nights)
    start = anchor_of(nights, anchor)
    for measure in MEASURES:
        value = _level(nights, measure)
        if value is None or measure.name not in last.figures:
            continue
        jumped = None
        if green is not None:
            reference = _level(nights[: green + 1], measure)
            name = f"the last green night ({nights[green].run})"
            jumped = _worse(measure, value, reference, name)
        if jumped:
            alarms.append(Alarm("TRD002", jumped))
        elif start is not None:
            reference = _first_level(nights[start:], measure)
            drifted = _worse(measure, value, reference, f"the anchor ({nights[start].run})")
            if drifted:
                alarms.append(Alarm("TRD003", drifted))
    return tuple(alarms)


def anchor_of(nights: Sequence[Night], accepted: float | None = None) -> int | None:
    """Return the number of the night that levels are held against, None if there is none.

    `accepted` is as `anchor` of `judge_nights`.
    """
    if accepted is not None:
        until = [number for number, night in enumerate(nights) if night.time <= accepted]
        if until:
            return until[-1]
    return next((number for number, night in enumerate(nights) if night.green), None)


def last_green_of(nights: Sequence[Night]) -> int | None:
    """Return the number of the last green night before the last, None if there is none."""
    green = [number for number, night in enumerate(nights[:-1]) if night.green]
    return green[-1] if green else None


def _level(nights: Sequence[Night], measure: Measure) -> float | None:
    """Return the median of a figure over the last `window` nights that have it."""
    values = [night.figures[measure.name] for night in nights if measure.name in night.figures]
    # Fewer than the window say nothing about what is noisy.
    return median(values[-measure.window :]) if len(values) >= measure.window else None


def _first_level(nights: Sequence[Night], measure: Measure) -> float | None:
    having = [night for night in nights if measure.name in night.figures]
    return _level(having[: measure.window], measure)


def _worse(measure: Measure, value: float, reference: float | None, name: str) -> str | None:
    """Return in words by how much `value` is worse than its reference, None if within tolerance."""
    if reference is None:
        return None
    allowed = max(measure.share * abs(reference), measure.floor)
    # Figures are sums of float64: what is equal but for rounding is equal.
    if measure.worse * (value - reference) <= allowed + 1e-12:
        return None
    return f"{measure.name} is {value:.4g}, {reference:.4g} at {name}; {allowed:.2g} is let pass"


def _unsteady(last: Night, before: Sequence[Night]) -> list[Alarm]:
    """Return an alarm for each output whose bits changed though nothing that decides them did."""
    alarms = []
    for name, digest in sorted(last.outputs.items()):
        for night in reversed(before):
            if night.inputs == last.inputs and name in night.outputs:
                if night.outputs[name] != digest:
                    message = f"{name} have other bits than at {night.run}, from equal inputs"
                    alarms.append(Alarm("TRD004", message))
                break
    return alarms
