"""Nights in a row: the last compared with the last green one and with a fixed anchor.

A change that stays within its tolerance every night is never a jump. Compared with the anchor,
which does not move, such changes add up until they are a drift.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    is worse, -1 where a lower one is.
    """

    worse: int
    share: float = 0.0
    floor: float = 0.0

    def allowed(self, reference: float) -> float:
        """Largest worsening that is no alarm."""
        return max(self.share * abs(reference), self.floor)

    def is_worse(self, value: float, reference: float) -> bool:
        """Whether a value is worse than its reference by more than is allowed."""
        # Figures are sums of float64: values that differ by rounding alone are equal.
        return self.worse * (value - reference) > self.allowed(reference) + 1e-12


# Distances from PP=1 may grow by half; a share of rows or questions may drop by the margin of the
# accuracy check.
TOLERANCES = {
    "relative_rms": Tolerance(worse=+1, share=0.5, floor=1e-6),
    "kl": Tolerance(worse=+1, share=0.5, floor=1e-6),
    "top1": Tolerance(worse=-1, floor=DEFAULT_MARGIN),
    "candidate": Tolerance(worse=-1, floor=DEFAULT_MARGIN),
    "baseline": Tolerance(worse=-1, floor=DEFAULT_MARGIN),
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
        nights = (_anchor(lines, history.anchor), _last_green(lines), lines[-1])
        levels = (None if night is None else night.figures.get(figure) for night in nights)
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
    for name, tolerance in TOLERANCES.items():
        known = [line for line in lines if name in line.figures]
        if name not in last.figures:
            continue
        references = (
            ("TRD002", "the last green night", _last_green(known)),
            ("TRD003", "the anchor", _anchor(known, accepted)),
        )
        value = last.figures[name]
        for code, words, line in references:
            if line is not None and tolerance.is_worse(value, level := line.figures[name]):
                message = (
                    f"{name} is {value:.4g}, {level:.4g} at {words} ({line.run}); "
                    f"{tolerance.allowed(level):.2g} is allowed"
                )
                alarms.append((code, message))
                break
    return tuple(alarms)


def _anchor(lines: Sequence[HistoryLine], accepted: float | None) -> HistoryLine | None:
    """Night that levels are compared with, None if there is none."""
    until = [line for line in lines if accepted is not None and line.time <= accepted]
    return until[-1] if until else next((line for line in lines if line.outcome == "ok"), None)


def _last_green(lines: Sequence[HistoryLine]) -> HistoryLine | None:
    return next((line for line in reversed(lines[:-1]) if line.outcome == "ok"), None)
