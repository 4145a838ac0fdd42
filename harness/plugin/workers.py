"""pytest-xdist: whether this is its controller, and which points its workers have collected."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..plan.points import Point


def distributed(config: pytest.Config) -> bool:
    """Whether this process is a controller of pytest-xdist, whose workers run the items."""
    option = config.getoption
    return option("dist", "no") != "no" and bool(option("tx", None))


def points_named(ids: Iterable[str], points: "Sequence[Point]") -> "set[Point]":
    """Return the points that the ids of items name; a suite may have parameters of its own.

    The longest name counts: `fixed-ple-pp2-tp2` holds the name `fixed-ple-pp2` too.
    """
    longest = sorted(points, key=lambda point: -len(point.id))
    named = set()
    for name in {f"-{item.partition('[')[2].removesuffix(']')}-" for item in ids}:
        found = next((point for point in longest if f"-{point.id}-" in name), None)
        if found is not None:
            named.add(found)
    return named


def auto_workers(config: pytest.Config) -> int:
    """Return how many engines the devices allow at once: cores, or GPUs.

    Raises:
        BadInputError: as for the run itself, if its options cannot be used.
    """
    from ..capture.pools import find_pool
    from ..plan.installation import find_installation
    from ..plan.sweep import plan_sweeps
    from .options import options_of

    find = config.hook.pytest_pp_harness_finder(config=config) or find_installation
    sweeps = plan_sweeps(options_of(config), find=find)
    return max(1, len(find_pool(next(iter(sweeps.values()))).ids))
