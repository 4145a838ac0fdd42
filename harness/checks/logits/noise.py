"""Whether PP=N moves rows further than PP=1 moves them in other batches. Pure.

Sums in another order round differently, so that rows move. How far is no constant: PP=1 runs its
probes several times more in other batches, and these floor passes say how far rounding alone takes
each request. If PP changes nothing, a run at PP=N is one more such pass, and in each request it is
as likely as any of them to have moved furthest. Counting the requests in which it has takes no
distribution of the noise for granted, and no single row can widen a limit (docs/numbers.md).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
# Distances of the rows of each request from their baseline, relative to its size; 0: equal bits.
Moves = Mapping[str, Floats]

# The chance that one comparison of an honest engine fails: 1 % for a night of a hundred.
FALSE_ALARM = 1e-4
# The chance that one is inconclusive for requests that are no proof.
SUSPICION = 0.01
# A request counts where it moves so many times as far as in any floor pass.
MARGIN = 2.0
# A single row counts where it moves so many times as far as any row of any floor pass.
ROW_MARGIN = 4.0
# So much further off than any row of a floor pass is no row by the same noise.
_FAR_MARGIN = 16.0
# Every row moved by this share of its size must be seen, else a comparison decides nothing.
RESOLUTION = 0.01
# The distance from 1 to the next number, by dtype.
_EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
# Roundings by which a layer may move a row whose input had the same bits: so many where fewer than
# `_ENTRIES` entries of noise were seen, else one. Sums of float32 are off by more than a rounding
# of their result: no row is judged by less than `_LEAST`.
_ROUNDINGS, _ENTRIES, _LEAST = 4, 8, 1e-4

# How a request stands for its rows: half of them, which every systematic fault moves, or one.
_STATISTICS: tuple[Callable[[Floats], float], ...] = (
    lambda far: float(np.sort(far)[len(far) // 2]),
    lambda far: float(far.max()),
)


@dataclass(frozen=True)
class Place:
    """A place in travel order at which rows are compared: behind a layer, or (None) the logits.

    Candidate and floor passes hold the same rows; `unseen` counts further rows of the candidate
    that moved, of which a floor pass holds nothing.
    """

    layer: int | None
    candidate: Moves
    floors: tuple[Moves, ...]
    unseen: int = 0


@dataclass(frozen=True)
class Excess:
    """Requests that PP=N moves further than rounding moves them.

    `chance` is the probability that a pass of PP=1 shows as many; None where a single request went
    further than a rounding can, `far` and `limit` then are how far and what a rounding can.
    """

    layer: int | None
    requests: tuple[str, ...]
    chance: float | None = None
    far: float = 0.0
    limit: float = 0.0


def rounding(dtype: str, layers: int) -> float:
    """Relative move of a row by a rounding of `dtype` in each of `layers`, all one way.

    The most that rounding can do where nothing amplifies it (Higham 2002, section 3.1).
    """
    return _EPSILON[dtype] * layers


def share_moved(moves: Moves) -> float:
    """Share of rows that moved."""
    rows = sum(map(len, moves.values()))
    return sum(int((far > 0).sum()) for far in moves.values()) / rows if rows else 0.0


def furthest(moves: Moves) -> float:
    """Distance of the row that moved furthest; 0 without rows."""
    return max((float(far.max()) for far in moves.values() if len(far)), default=0.0)


def systematic_excess(places: Sequence[Place], false_alarm: float = FALSE_ALARM) -> Excess | None:
    """First place at which more requests move further than in all floor passes than chance allows.

    Further than the same request does, or than any: the second tells where noise in the others is
    much smaller than the fault in some. All places, statistics and counts share `false_alarm`
    (Bonferroni).
    """
    level = _level(len(places), false_alarm)
    for place in places:
        for statistic in _STATISTICS:
            here = {name: statistic(far) for name, far in place.candidate.items()}
            most = {name: max(statistic(floor[name]) for floor in place.floors) for name in here}
            largest = max(most.values(), default=0.0)
            moved = sum(here[name] > 0 or most[name] > 0 for name in here)
            further = [name for name in here if here[name] > MARGIN * most[name]]
            furthest_of_all = [name for name in here if here[name] > MARGIN * largest]
            for beyond, total in ((further, moved), (furthest_of_all, len(furthest_of_all))):
                chance = _chance(len(beyond), total, len(place.floors))
                if chance < level:
                    return Excess(place.layer, tuple(beyond), chance)
    return None


def smallest_systematic(place: Place, places: int) -> float | None:
    """Least share of its size by which every row must move at a place so that it is seen.

    None if no move would be: there are too few requests for as many `places`.
    """
    limits = sorted(
        MARGIN * max(_STATISTICS[0](floor[request]) for floor in place.floors)
        for request in place.candidate
    )
    total, floors, level = len(limits), len(place.floors), _level(places, FALSE_ALARM)
    enough = (count for count in range(1, total + 1) if _chance(count, total, floors) < level)
    needed = next(enough, None)
    return None if needed is None else limits[needed - 1]


def entry_limit(places: Sequence[Place], dtype: str) -> float:
    """Most by which noise may enter a request: `ROW_MARGIN` times the largest entry at PP=1."""
    seen = [
        far
        for number in range(len(places[0].floors))
        for _, far in _entries(places, [place.floors[number] for place in places]).values()
    ]
    roundings = 1 if len(seen) >= _ENTRIES else _ROUNDINGS
    return max(ROW_MARGIN * max(seen, default=0.0), rounding(dtype, roundings), _LEAST)


def single_excess(places: Sequence[Place], limit: float) -> Excess | None:
    """Earliest place at which single requests move further than rounding can take them.

    Noise enters a request at the first place where any of its rows differs. Up to there the bits
    were equal, so that the move is what one layer rounds, however much later layers amplify it: at
    most `limit`. Where noise has entered before, only a row that is `_FAR_MARGIN` times further off
    than any row of the floor passes tells, if enough of their requests moved there.
    """
    entries = _entries(places, [place.candidate for place in places])
    for index, place in enumerate(places):
        moved = sum(far.max() > 0 for floor in place.floors for far in floor.values())
        most = max(map(furthest, place.floors))
        far_off = max(_FAR_MARGIN * most, limit) if moved >= _ENTRIES else float("inf")
        beyond = {
            name: largest
            for name, far in place.candidate.items()
            if (largest := float(far.max())) > limit
            and (entries[name][0] == index or largest > far_off)
        }
        if beyond:
            bound = limit if max(beyond.values()) <= far_off else far_off
            return Excess(place.layer, tuple(beyond), far=max(beyond.values()), limit=bound)
    return None


def _entries(places: Sequence[Place], moves: Sequence[Moves]) -> dict[str, tuple[int, float]]:
    """Number of the place where noise enters each request, and its size there."""
    entries: dict[str, tuple[int, float]] = {}
    for index in range(len(places)):
        for request, far in moves[index].items():
            if request not in entries and (largest := float(far.max())) > 0:
                entries[request] = (index, largest)
    return entries


def _level(places: int, false_alarm: float) -> float:
    """Level of one of two counts of one statistic at one place."""
    return false_alarm / (places * len(_STATISTICS) * 2)


def _chance(beyond: int, moved: int, floors: int) -> float:
    """Probability that a pass is ahead of all `floors` others in so many requests of `moved`."""
    from scipy.stats import binom

    return float(binom.sf(beyond - 1, moved, 1 / (floors + 1)))
