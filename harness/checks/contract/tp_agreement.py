"""Whether the tensor-parallel ranks of a stage agree on what crosses its boundaries.

Each of them holds a slice of the weights, and after the last sum of a layer the whole hidden
state. On a GPU a stage's rank r sends only the r-th slice of a tensor, and the next stage gathers
the slices of all: what is not the same on every rank arrives as a mixture.
"""

from collections.abc import Iterable

from ...capture.record import RankTrace, StepTrace
from ..finding import Finding, Severity


def disagreements(first: RankTrace, other: RankTrace) -> Iterable[Finding]:
    """Yield what `other` did otherwise than `first`, the stage's rank 0: one finding an aspect."""
    who = f"tensor-parallel ranks 0 and {other.tp_rank} of stage {first.stage}"
    if first.declared != other.declared:
        yield _finding(first, f"{who} declare different keys or shapes")
    if [step.spans for step in first.steps] != [step.spans for step in other.steps]:
        yield _finding(first, f"{who} ran different steps or rows")
        return
    pairs = list(zip(first.steps, other.steps, strict=True))
    for side, verb in (("reads", "read"), ("sent", "send"), ("copied", "are given")):
        apart = [one.index for one, two in pairs if _keys(one, side) != _keys(two, side)]
        if apart:
            yield _finding(first, f"{who} {verb} different keys in {_steps(apart, pairs)}")
    for key in sorted({key for one, _ in pairs for key in one.returned or {}}):
        apart = [one.index for one, two in pairs if _content(one, key) != _content(two, key)]
        if apart:
            yield _finding(
                first, f"{who} return different content as '{key}' in {_steps(apart, pairs)}", key
            )


def _keys(step: StepTrace, side: str) -> frozenset[str]:
    return frozenset(getattr(step, side) or ())


def _content(step: StepTrace, key: str) -> object:
    """Return the digests of what the stage returned; None where rows are scattered over ranks."""
    return ((step.returned or {}).get(key) or {}).get("digest")


def _steps(apart: list[int], pairs: list[tuple[StepTrace, StepTrace]]) -> str:
    return f"{len(apart)} of {len(pairs)} steps, first in step {apart[0]}"


def _finding(trace: RankTrace, message: str, key: str | None = None) -> Finding:
    return Finding(
        "CON015",
        Severity.ERROR,
        message,
        "what crosses a boundary must be whole and the same on every tensor-parallel rank",
        rank=trace.stage,
        key=key,
    )
