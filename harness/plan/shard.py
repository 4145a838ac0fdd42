"""Split a sweep over machines by expected cost: pure, the same on every machine."""

from collections.abc import Sequence
from dataclasses import dataclass

# A group that is more than this part of a fair shard is halved, and its baseline runs twice.
_LARGE = 0.9


@dataclass(frozen=True)
class Group:
    """Points (name, seconds) that share a baseline of `baseline` seconds."""

    baseline: float
    points: tuple[tuple[str, float], ...]

    @property
    def seconds(self) -> float:
        """Seconds that the group takes on one machine."""
        return self.baseline + sum(seconds for _, seconds in self.points)

    def halves(self) -> "tuple[Group, Group]":
        """Two groups of about the same cost, each with the baseline."""
        points = sorted(self.points, key=lambda point: (-point[1], point[0]))
        return Group(self.baseline, tuple(points[::2])), Group(self.baseline, tuple(points[1::2]))


def split(groups: Sequence[Group], count: int) -> tuple[frozenset[str], ...]:
    """Share points out to `count` shards: each group whole to the shard with the least to do.

    The largest groups go first; those above a fair share, and the largest where there are fewer
    groups than shards, are taken apart before. A shard is empty only if there are too few points.
    """
    parts, fair = list(groups), sum(group.seconds for group in groups) / count
    while divisible := [part for part in parts if len(part.points) > 1]:
        largest = max(divisible, key=lambda part: (part.seconds, part.points))
        if len(parts) >= count and largest.seconds <= _LARGE * fair:
            break
        parts.remove(largest)
        parts += largest.halves()
    shards: list[list[Group]] = [[] for _ in range(count)]
    for part in sorted(parts, key=lambda part: (-part.seconds, part.points)):
        min(shards, key=lambda shard: sum(group.seconds for group in shard)).append(part)
    return tuple(frozenset(name for part in shard for name, _ in part.points) for shard in shards)
