"""The logits figure `difference` as rows of a heat map: layers down, positions across."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import log10
from typing import Any

from .text import figure

# Smallest change that the colours tell apart; a change of bits that leaves the norm has this
# colour too.
_LEAST = 1e-7
# Levels of colour; level 0 is equal bits and has none.
LEVELS = 4


@dataclass(frozen=True)
class Run:
    """Neighbouring columns of a layer that have one level."""

    start: int
    count: int
    level: int
    text: str


@dataclass(frozen=True)
class LayerDifference:
    """A layer of the map: how many columns differ, by how much at most, and the first of them.

    `is_boundary` says that a stage begins with it.
    """

    layer: int
    stage: int
    is_boundary: bool
    differing: int
    largest: float | None
    first: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class HeatMap:
    """All layers; the columns at which another request starts; the least change of each level."""

    columns: int
    requests: tuple[int, ...]
    levels: tuple[float, ...]
    layers: tuple[LayerDifference, ...]


def heat_map(difference: Mapping[str, Any]) -> HeatMap:
    """Read the figure; how far the norm of a layer's output moves is a lower bound of its change.

    A column is (request, first position, count of positions).
    """
    columns, stages = difference["columns"], difference["stages"]
    changes = [
        [_change(share, apart) for share, apart in zip(changed, norm, strict=True)]
        for changed, norm in zip(difference["changed"], difference["norm"], strict=True)
    ]
    known = [log10(change) for row in changes for change in row if change is not None] or [0.0]
    low, step = min(known), (max(known) - min(known)) / LEVELS or 1.0
    layers = []
    for row, (layer, stage) in enumerate(zip(difference["layers"], stages, strict=True)):
        norm = difference["norm"][row]
        differing = [at for at, change in enumerate(changes[row]) if change is not None]
        moved = [norm[at] for at in differing if norm[at] is not None]
        levels = [
            0 if change is None else 1 + min(LEVELS - 1, int((log10(change) - low) / step))
            for change in changes[row]
        ]
        layers.append(
            LayerDifference(
                layer=layer,
                stage=stage,
                is_boundary=row > 0 and stage != stages[row - 1],
                differing=len(differing),
                largest=max(moved, default=None),
                first="{} position {}".format(*columns[differing[0]]) if differing else "",
                runs=tuple(_runs(levels, columns, norm)),
            )
        )
    names = [name for name, _, _ in columns]
    starts = (at for at in range(1, len(names)) if names[at] != names[at - 1])
    bounds = (10 ** (low + step * level) for level in range(LEVELS))
    return HeatMap(len(columns), tuple(starts), tuple(bounds), tuple(layers))


def _change(share: float, apart: float | None) -> float | None:
    """Distance that a column is coloured by, None where all its bits are equal."""
    return max(apart or 0.0, _LEAST) if share else None


def _runs(
    levels: Sequence[int], columns: Sequence[Sequence[Any]], norm: Sequence[float | None]
) -> list[Run]:
    """Join neighbouring columns of a level above 0; the text names the first and the last."""
    runs = []
    for level, group in groupby(range(len(levels)), key=levels.__getitem__):
        own = list(group)
        if level:
            (first, position, _), (last, at, count) = columns[own[0]], columns[own[-1]]
            moved = [norm[column] for column in own]
            most = max((value for value in moved if value is not None), default=None)
            text = f"{first} position {position} to {last} position {at + count - 1}"
            runs.append(Run(own[0], len(own), level, f"{text}: norm by {figure(most)} at most"))
    return runs
