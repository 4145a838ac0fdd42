"""Nights in a row: the last compared with the last green one and with a fixed anchor.

A change that stays within its tolerance every night is never a jump. Compared with the anchor,
which does not move, such changes add up until they are a drift.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..checks.registry import find_check
from ..engine.settings import Profile
from ..plan.options import DEFAULT_MARGIN
from .history import History, HistoryLine
from .shell import render

_DAY = 86400.0
# Nights of a check on the page: a month, which keeps a page of hundreds of checks small.
_SHOWN = 30


@dataclass(frozen=True)
class Tolerance:
    """How much worse a figure may be than its reference.

    By `share` of the reference or by `floor`, whichever is more. `worse` is +1 where a higher value
    is worse, -1 where a lower one is. `nights` are taken together, as their median: several for
    what a busy machine makes noisy.
    """

    worse: int
    share: float = 0.0
    floor: float = 0.0
    nights: int = 1

    def allowed(self, reference: float) -> float:
        """Largest worsening that is no alarm."""
        return max(self.share * abs(reference), self.floor)

    def is_worse(self, value: float, reference: float) -> bool:
        """Whether a value is worse than its reference by more than is allowed."""
        # Figures are sums of float64: values that differ by rounding alone are equal.
        return self.worse * (value - reference) > self.allowed(reference) + 1e-12


# Distances from PP=1 may grow by half; a share of rows or questions may drop by the margin of the
# accuracy check. Time is a ratio to PP=1 of the same run, so that a slow machine slows both; half
# as much again over three nights is no noise.
TOLERANCES = {
    "relative_rms": Tolerance(worse=+1, share=0.5, floor=1e-6),
    "kl": Tolerance(worse=+1, share=0.5, floor=1e-6),
    "top1": Tolerance(worse=-1, floor=DEFAULT_MARGIN),
    "candidate": Tolerance(worse=-1, floor=DEFAULT_MARGIN),
    "baseline": Tolerance(worse=-1, floor=DEFAULT_MARGIN),
    "seconds_ratio": Tolerance(worse=+1, share=0.5, nights=3),
}


@dataclass(frozen=True)
class Trend:
    """The nights of a check of a point, oldest first, and the last compared with earlier ones.

    `alarms` are codes of docs/nightly.md, each with a sentence; none if the check was not judged of
    late (`current`). `figure` names the one that stands for the check, empty if it has none;
    `levels` are its values at the anchor, at the last green night, and now.
    """

    lines: tuple[HistoryLine, ...]
    current: bool
    alarms: tuple[tuple[str, str], ...]
    figure: str
    levels: tuple[float | None, ...]

    @property
    def last(self) -> HistoryLine:
        """The last night."""
        return self.lines[-1]


def trends(history: History, within_days: float) -> list[Trend]:
    """Judge every check whose last line is at most `within_days` older than the newest of all."""
    newest = max((line.time for line in history.lines), default=0.0)
    result = []
    for lines in history.tracks:
        current = newest - lines[-1].time <= within_days * _DAY
        alarms = judge_nights(lines, history.anchor) if current else ()
        check = find_check(lines[-1].check)
        figure = check.trend if check else ""
        nights = (_anchor(lines, history.anchor), _last_green(lines), len(lines) - 1)
        levels = (None if night is None else lines[night].figures.get(figure) for night in nights)
        result.append(Trend(lines, current, alarms, figure, tuple(levels)))
    return result


def render_trend(trends: Sequence[Trend]) -> str:
    """Fill the page of a history; names are untrusted text and are shown as text."""
    return render(
        "trend.html.j2",
        current=[trend for trend in trends if trend.current],
        gone=[trend for trend in trends if not trend.current],
        alarms=sum(len(trend.alarms) for trend in trends),
        nights=len({line.run for trend in trends for line in trend.lines}),
        shown=_SHOWN,
    )


def judge_nights(
    lines: Sequence[HistoryLine], accepted: float | None = None
) -> tuple[tuple[str, str], ...]:
    """Judge the last of the nights (oldest first) of one check of one point.

    Levels are compared with the anchor: the first green night or, where a person accepted the
    levels of `accepted` (seconds since the epoch), the last night until then.
    """
    last, alarms = lines[-1], []
    if last.outcome == "unexpected":
        alarms.append(("TRD001", f"not green: {last.reason or last.summary}"))
    # Under stress the batches differ from run to run, and so may the bits.
    for name, digest in sorted(last.outputs.items()) if last.profile == Profile.PARITY else ():
        same = (line for line in reversed(lines[:-1]) if line.inputs == last.inputs)
        earlier = next((line for line in same if name in line.outputs), None)
        if earlier is not None and earlier.outputs[name] != digest:
            message = f"{name} have other bits than at {earlier.run}, from equal inputs"
            alarms.append(("TRD004", message))
    anchor, green = _anchor(lines, accepted), _last_green(lines)
    for name, tolerance in TOLERANCES.items():
        if name in last.figures:
            alarms += _worse(name, tolerance, lines, green, anchor)
    return tuple(alarms)


def _worse(
    name: str,
    tolerance: Tolerance,
    lines: Sequence[HistoryLine],
    green: int | None,
    anchor: int | None,
) -> list[tuple[str, str]]:
    """The alarm of a figure: of a jump since the last green night, else of a drift."""
    values = [(at, line.figures[name]) for at, line in enumerate(lines) if name in line.figures]
    nights, references = tolerance.nights, []
    if green is not None:
        levels = [value for at, value in values if at <= green][-nights:]
        references.append(("TRD002", f"the last green night ({lines[green].run})", levels))
    if anchor is not None:
        levels = [value for at, value in values if at >= anchor][:nights]
        references.append(("TRD003", f"the anchor ({lines[anchor].run})", levels))
    for code, reference, levels in references:
        # Fewer nights than asked for say nothing about what is noisy.
        if min(len(values), len(levels)) < nights:
            continue
        value, level = median(value for _, value in values[-nights:]), median(levels)
        if tolerance.is_worse(value, level):
            allowed = tolerance.allowed(level)
            message = f"{name} is {value:.4g}, {level:.4g} at {reference}; {allowed:.2g} is allowed"
            return [(code, message)]
    return []


def _anchor(lines: Sequence[HistoryLine], accepted: float | None) -> int | None:
    """Number of the night that levels are compared with, None if there is none."""
    if accepted is not None:
        until = [number for number, line in enumerate(lines) if line.time <= accepted]
        if until:
            return until[-1]
    return next((number for number, line in enumerate(lines) if line.outcome == "ok"), None)


def _last_green(lines: Sequence[HistoryLine]) -> int | None:
    """Number of the last green night before the last, None if there is none."""
    green = [number for number, line in enumerate(lines[:-1]) if line.outcome == "ok"]
    return green[-1] if green else None
