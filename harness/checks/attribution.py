"""The patch of a series behind a finding: {base, each prefix} x {PP=1, PP=N}.

Every prefix of a series is measured, so that neighbours differ in the patches between them. The
effect of a patch on PP=1 and its effect on PP=N are two statements.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any, TypeVar

from ..capture.record import Capture
from ..plan.points import Point
from .engine import engine_failure
from .finding import Outcome, Verdict
from .logits.logits import LOGITS, compare_logits
from .registry import ENGINE

Value = TypeVar("Value")


class Effect(StrEnum):
    """Effect of patches on a check.

    `revealed` and `hidden` where there was no answer before, or is none now; `moved` (other
    logits) and `broke` (the engine) are said of PP=1. Names of older reports are read.
    """

    INTRODUCED = "introduced"
    REVEALED = "revealed"
    FIXED = "fixed"
    HIDDEN = "hidden"
    MOVED = "moved"
    BROKE = "broke"

    @classmethod
    def _missing_(cls, value: object) -> "Effect | None":
        return cls.FIXED if value in ("cured", "mended") else None


@dataclass(frozen=True)
class Prefix:
    """A variant, and the names of all its patches in order."""

    variant: str
    patches: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """The outcome of a check of a point, and the codes of its errors."""

    outcome: Outcome
    codes: frozenset[str]


@dataclass(frozen=True)
class Attribution:
    """Effect of the patches between two neighbouring variants on a verdict, or on PP=1.

    It stands in the report as it is; `pin` is the release.
    """

    patches: tuple[str, ...]
    before: str
    after: str
    model: str
    pp: int
    effect: Effect
    check: str
    codes: tuple[str, ...]
    message: str
    figures: dict[str, Any] = field(default_factory=dict)
    pin: str = ""


def attribute(
    prefixes: Sequence[Prefix], judged: Mapping[tuple[Point, str], Judged]
) -> list[Attribution]:
    """Attribute the changes of verdicts at PP=N; `judged` is by point and check.

    Neighbours are the prefixes that were judged; a check of a point that only one of them has is
    left out.
    """
    attributions = []
    for patches, after, point, check, old, new in _neighbours(prefixes, judged):
        effect, codes = _effect(old, new)
        if effect is not None:
            where = ", ".join([f"{point.model} at PP={point.pp}", *point.extras])
            message = (
                f"{' and '.join(patches)} {effect} {', '.join(codes)} ({check} of {where}: "
                f"{old.outcome} before, {new.outcome} after)"
            )
            place = patches, point.variant, after, point.model, point.pp
            attributions.append(Attribution(*place, effect, check, codes, message))
    return attributions


def attribute_baselines(
    prefixes: Sequence[Prefix], baselines: Mapping[Point, Capture]
) -> list[Attribution]:
    """Attribute the changes of PP=1; `baselines` maps points at PP=1 to captures.

    A patch that moves the logits at PP=1 changes the model itself, whatever it does to PP.
    """
    captures = {(point, ""): capture for point, capture in baselines.items()}
    attributions = []
    for patches, after, point, _, old, new in _neighbours(prefixes, captures):
        effect, check, verdict = _baseline_effect(old, new)
        if effect is not None:
            message = f"{' and '.join(patches)} {effect} PP=1 of {point.model}: {verdict.summary}"
            codes = tuple(sorted(verdict.error_codes))
            place = patches, point.variant, after, point.model, point.pp
            attributions.append(Attribution(*place, effect, check, codes, message, verdict.figures))
    return attributions


def _effect(old: Judged, new: Judged) -> tuple[Effect | None, tuple[str, ...]]:
    came, went = tuple(sorted(new.codes - old.codes)), tuple(sorted(old.codes - new.codes))
    if came:
        return (Effect.REVEALED if old.outcome is Outcome.BLOCKED else Effect.INTRODUCED), came
    if went:
        return (Effect.HIDDEN if new.outcome is Outcome.BLOCKED else Effect.FIXED), went
    return None, ()


def _baseline_effect(old: Capture, new: Capture) -> tuple[Effect | None, str, Verdict]:
    """Effect on PP=1, the check that shows it, and the verdict behind it."""
    before, after = engine_failure(old), engine_failure(new)
    if after is not None:
        return (Effect.BROKE if before is None else None), ENGINE, after
    if before is not None:
        return Effect.FIXED, ENGINE, before
    verdict = compare_logits(old, new)
    return (Effect.MOVED if verdict.error_codes else None), LOGITS.name, verdict


def _neighbours(
    prefixes: Sequence[Prefix], values: Mapping[tuple[Point, str], Value]
) -> Iterator[tuple[tuple[str, ...], str, Point, str, Value, Value]]:
    """Yield (patches, later variant, earlier point, check, earlier value, later value).

    The two variants are neighbours among those of `values`, and the later one has more patches.
    """
    variants = {point.variant for point, _ in values}
    for before, after in pairwise(prefix for prefix in prefixes if prefix.variant in variants):
        count = len(before.patches)
        patches = after.patches[count:]
        if not patches or after.patches[:count] != before.patches:
            continue
        for point, check in sorted(values):
            new = values.get((replace(point, variant=after.variant), check))
            if point.variant == before.variant and new is not None:
                yield patches, after.variant, point, check, values[point, check], new
