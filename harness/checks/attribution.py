"""Which patch of a series is behind a finding: {base, each prefix} x {PP=1, PP=N}.

Every prefix of a series is measured, so that neighbours differ in the patches between them. What
a patch does to PP=1 and what it does to PP=N are two statements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ..capture.record import Capture
from .engine import engine_failure
from .logits.logits import compare_logits

# A point without its variant, and a check: model, PP, profile, TP, check.
Place = tuple[str, int, str, int, str]


@dataclass(frozen=True)
class Prefix:
    """A variant, and the names of all its patches in order."""

    variant: str
    patches: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """What a check said of a place under one variant: its outcome and the codes of its errors."""

    outcome: str
    codes: frozenset[str]


@dataclass(frozen=True)
class Attribution:
    """What the patches between two neighbouring variants did at one place.

    `effect` is `introduced` or `cured`; `revealed` and `hidden` where there was no answer before,
    or is none now; at PP=1 `moved` (other logits), `broke` or `mended` (the engine).
    """

    patches: tuple[str, ...]
    before: str
    after: str
    model: str
    pp: int
    effect: str
    check: str
    codes: tuple[str, ...]
    message: str
    figures: dict[str, Any] = field(default_factory=dict)


def attribute(
    prefixes: Sequence[Prefix], judged: Mapping[str, Mapping[Place, Judged]]
) -> list[Attribution]:
    """Return what each patch did to the verdicts at PP=N.

    `judged` maps a variant to what was said of its places. Neighbours are the prefixes that were
    judged; a place that only one of them has is left out.
    """
    found: list[Attribution] = []
    for before, after, patches in _steps([one for one in prefixes if one.variant in judged]):
        old, new = judged[before], judged[after]
        for place in sorted(set(old) & set(new)):
            effect, codes = _effect(old[place], new[place])
            if effect:
                model, pp, profile, tp, check = place
                where = f"{model} at PP={pp}" + _rest(profile, tp)
                found.append(
                    Attribution(
                        patches,
                        before,
                        after,
                        model,
                        pp,
                        effect,
                        check,
                        codes,
                        f"{' and '.join(patches)} {effect} {', '.join(codes)} "
                        f"({check} of {where}: {old[place].outcome} before, "
                        f"{new[place].outcome} after)",
                    )
                )
    return found


def _effect(old: Judged, new: Judged) -> tuple[str, tuple[str, ...]]:
    came, went = tuple(sorted(new.codes - old.codes)), tuple(sorted(old.codes - new.codes))
    if came:
        return ("revealed" if old.outcome == "blocked" else "introduced"), came
    if went:
        return ("hidden" if new.outcome == "blocked" else "cured"), went
    return "", ()


def attribute_baselines(
    prefixes: Sequence[Prefix], baselines: Mapping[str, Mapping[str, Capture]]
) -> list[Attribution]:
    """Return what each patch did to PP=1; `baselines` maps variant and model to the capture.

    A patch that moves the logits at PP=1 changes the model itself, whatever it does to PP.
    """
    found: list[Attribution] = []
    for before, after, patches in _steps([one for one in prefixes if one.variant in baselines]):
        for model in sorted(set(baselines[before]) & set(baselines[after])):
            old, new = baselines[before][model], baselines[after][model]
            effect, text, codes, figures = _between(old, new)
            if effect:
                message = f"{' and '.join(patches)} {effect} PP=1 of {model}: {text}"
                check = "logits" if effect == "moved" else "engine"
                found.append(
                    Attribution(
                        patches, before, after, model, 1, effect, check, codes, message, figures
                    )
                )
    return found


def _between(old: Capture, new: Capture) -> tuple[str, str, tuple[str, ...], dict[str, Any]]:
    was, now = engine_failure(old), engine_failure(new)
    if was is not None and now is not None:
        return "", "", (), {}
    if now is not None:
        return "broke", now.summary, tuple(one.code for one in now.findings), {}
    if was is not None:
        return "mended", was.summary, tuple(one.code for one in was.findings), {}
    verdict = compare_logits(old, new)
    codes = tuple(sorted({one.code for one in verdict.findings if one.severity.value == "error"}))
    return ("moved" if codes else ""), verdict.summary, codes, verdict.figures


def _steps(prefixes: Sequence[Prefix]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return neighbours with the patches between them, where the later one has more."""
    steps = []
    for before, after in pairwise(prefixes):
        more = after.patches[len(before.patches) :]
        if more and after.patches[: len(before.patches)] == before.patches:
            steps.append((before.variant, after.variant, more))
    return steps


def _rest(profile: str, tp: int) -> str:
    return (f", {profile}" if profile != "parity" else "") + (f", TP={tp}" if tp > 1 else "")
