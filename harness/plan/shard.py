"""Split a sweep over machines by expected cost: pure, the same on every machine."""

from collections.abc import Sequence
from dataclasses import dataclass

# A group is taken apart, and its baseline run twice, only if the longest shard shrinks by so much.
_WORTH = 0.9


@dataclass(frozen=True)
class Group:
    """Points (name, seconds) that share a baseline of `baseline` seconds."""

    baseline: float
    points: tuple[tuple[str, float], ...]

    @property
    def seconds(self) -> float:
        """Return what the group costs on one machine."""
        return self.baseline + sum(seconds for _, seconds in self.points)

    def halves(self) -> "tuple[Group, Group]":
        """Return two groups of about the same cost, each with the baseline."""
        sides: tuple[list[tuple[str, float]], ...] = ([], [])
        for point in sorted(self.points, key=lambda one: (-one[1], one[0])):
            min(sides, key=lambda side: sum(seconds for _, seconds in side)).append(point)
        return Group(self.baseline, tuple(sides[0])), Group(self.baseline, tuple(sides[1]))


def split(groups: Sequence[Group], count: int) -> tuple[frozenset[str], ...]:
    """Return the names of the points of each of `count` shards.

    Groups go whole to the shard with the least to do, largest first (Graham, Bounds on
    multiprocessing timing anomalies, 1969). Where that leaves shards empty or one much longer than
    the others, the largest group is taken apart.
    """
    parts = list(groups)
    bins = _assign(parts, count)
    while True:
        largest = max(
            (part for part in parts if len(part.points) > 1),
            key=lambda part: (part.seconds, part.points),
            default=None,
        )
        if largest is None:
            break
        finer = [part for part in parts if part is not largest] + list(largest.halves())
        tried = _assign(finer, count)
        if all(bins) and _longest(tried) > _WORTH * _longest(bins):
            break
        parts, bins = finer, tried
    return tuple(frozenset(name for part in side for name, _ in part.points) for side in bins)


def _assign(parts: Sequence[Group], count: int) -> list[list[Group]]:
    bins: list[list[Group]] = [[] for _ in range(count)]
    for part in sorted(parts, key=lambda one: (-one.seconds, one.points)):
        min(bins, key=_seconds).append(part)
    return bins


def _seconds(side: Sequence[Group]) -> float:
    return sum(part.seconds for part in side)


def _longest(bins: Sequence[Sequence[Group]]) -> float:
    return max(map(_seconds, bins))
