"""A history read as a whole: which tracks were judged of late, and what is wrong with each."""

from dataclasses import dataclass

from ..checks.registry import find_check
from .drift import Alarm, anchor_of, judge_nights, last_green_of
from .history import History, HistoryLine, Track

_DAY = 86400.0


@dataclass(frozen=True)
class TrackTrend:
    """One track: its lines, oldest first, and the alarms of the last; none if it is not current.

    `anchor` and `green` are the numbers of the lines that the last is held against: the anchor, and
    the last green one before it.
    """

    track: Track
    lines: tuple[HistoryLine, ...]
    current: bool
    alarms: tuple[Alarm, ...]
    anchor: int | None
    green: int | None

    @property
    def figure(self) -> str | None:
        """Return the name of the figure that stands for the check; a contract has none."""
        check = find_check(self.track.check)
        return check.trend or None if check else None

    @property
    def values(self) -> list[float | None]:
        """Return that figure night by night, None where a night has none."""
        return [line.figures.get(self.figure or "") for line in self.lines]


def trends(history: History, within_days: float) -> list[TrackTrend]:
    """Judge every track whose last line is at most `within_days` older than the newest of all."""
    newest = max((line.time for line in history.lines), default=0.0)
    found = []
    for track, lines in sorted(history.tracks.items()):
        current = newest - lines[-1].time <= within_days * _DAY
        nights = [line.night for line in lines]
        alarms = judge_nights(nights, history.anchor) if current else ()
        anchor, green = anchor_of(nights, history.anchor), last_green_of(nights)
        found.append(TrackTrend(track, tuple(lines), current, alarms, anchor, green))
    return found
