"""Agreement of a stage's tensor-parallel ranks on the tensors that cross its boundaries.

Each of them holds a slice of the weights, and after the last sum of a layer the whole hidden
state. On a GPU a stage's rank r sends only the r-th slice of a tensor, and the next stage gathers
the slices of all: what is not the same on every rank arrives as a mixture.
"""

from collections.abc import Callable, Iterable

from ...capture.record import RankTrace, StepTrace
from ..finding import Finding


def disagreements(first: RankTrace, other: RankTrace) -> Iterable[Finding]:
    """Yield a finding for each aspect in which `other` differs from `first`, the stage's rank 0."""
    who = f"tensor-parallel ranks 0 and {other.tp_rank} of stage {first.stage}"
    if first.declared != other.declared:
        yield _finding(first, f"{who} declare different keys or shapes")
    if [step.spans for step in first.steps] != [step.spans for step in other.steps]:
        yield _finding(first, f"{who} ran different steps or rows")
        return

    def steps_apart(aspect: Callable[[StepTrace, str], object], name: str) -> str:
        """Say in which steps an aspect differs; empty if in none."""
        pairs = list(zip(first.steps, other.steps, strict=True))
        apart = [left.index for left, right in pairs if aspect(left, name) != aspect(right, name)]
        return f"{len(apart)} of {len(pairs)} steps, first in step {apart[0]}" if apart else ""

    for side, verb in (("reads", "read"), ("sent", "send"), ("copied", "are given")):
        if steps := steps_apart(_keys, side):
            yield _finding(first, f"{who} {verb} different keys in {steps}")
    for key in sorted({key for step in first.steps for key in step.returned or {}}):
        if steps := steps_apart(_content, key):
            yield _finding(first, f"{who} return different content as '{key}' in {steps}", key)


def _keys(step: StepTrace, side: str) -> frozenset[str]:
    return frozenset(getattr(step, side) or ())


def _content(step: StepTrace, key: str) -> object:
    """Digests of the tensor that the stage returned; None where rows are scattered over ranks."""
    return ((step.returned or {}).get(key) or {}).get("digest")


def _finding(trace: RankTrace, message: str, key: str | None = None) -> Finding:
    return Finding(
        "CON015",
        message,
        "what crosses a boundary must be whole and the same on every tensor-parallel rank",
        stage=trace.stage,
        key=key,
    )
