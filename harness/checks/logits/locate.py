"""The place where a difference enters: the first decoder layer that differs, and what fed it."""

from dataclasses import dataclass

from ...capture.record import Capture
from ..layers import Row, layer_rows, looks_ahead, stage_of


@dataclass(frozen=True)
class Location:
    """The first difference in travel order. `sentence` is the whole story in one line."""

    layer: int
    stage: int
    request: str
    position: int
    entered: dict[str, str]
    sentence: str


def locate(baseline: Capture, candidate: Capture) -> Location | None:
    """Find where bits of `candidate` first differ from those that `baseline` repeats.

    Layers are walked in order, then rows in the order in which they ran, so that the answer is
    the layer nearest to the cause; None if no layer differs. A row that PP=1 itself did not repeat
    at a layer says nothing there, nor does a layer that looks ahead.
    """
    before, after = layer_rows(baseline, "digest"), layer_rows(candidate, "digest")
    passes = [
        layer_rows(baseline, "digest", floor=number) for number in range(len(baseline.floor_logits))
    ]
    moved: dict[int, list[Row]] = {}
    for layer in sorted(set(before) & set(after)):
        sides = [after[layer], *(floor.get(layer, {}) for floor in passes)]
        moved[layer] = [
            row
            for row, digest in before[layer].items()
            if sides[0].get(row, digest) != digest
            and all(floor.get(row, digest) == digest for floor in sides[1:])
        ]
    for layer, rows in moved.items():
        if rows and not looks_ahead(candidate, layer, moved):
            return describe(candidate, layer, rows[0])
    return None


def first_moved(baseline: Capture, candidate: Capture, layer: int, request: str) -> Row:
    """First row of a request whose bits differ behind a layer."""
    before, after = (layer_rows(side, "digest")[layer] for side in (baseline, candidate))
    return next(
        row for row in before if row[0] == request and before[row] != after.get(row, before[row])
    )


def describe(candidate: Capture, layer: int, row: Row) -> Location:
    """Describe the place of a row that differs behind a layer, and what fed it."""
    stage, (request, position) = stage_of(candidate, layer), row
    entered = _entered(candidate, stage, row)
    fed = "".join(f"{key} {how}; " for key, how in entered.items())
    sentence = (
        f"stage {stage}, layer {layer}: {fed}first difference after layer {layer} at "
        f"{request} position {position}"
    )
    return Location(layer, stage, request, position, entered, sentence)


def _entered(candidate: Capture, stage: int, row: Row) -> dict[str, str]:
    """Say in words how each key entered the stage in the step of a row; stage 0 is fed by none."""
    if stage == 0:
        return {}
    trace, sender = candidate.stages[stage], candidate.stages[stage - 1]
    index, step = next(
        (index, step)
        for index, step in enumerate(trace.steps)
        if any(row in span.rows for span in step.spans)
    )
    sent = (sender.steps[index] if index < len(sender.steps) else step).sent or {}
    copied = step.copied or {}
    entered = {}
    for key in sorted(set(sent) | set(trace.declared or {})):
        left, arrived = sent.get(key), copied.get(key)
        if left is None:
            how = "is not sent"
        elif arrived is not None and left.get("digest") != arrived.get("digest"):
            how = "arrives changed"
        else:
            how = "arrives equal"
        entered[key] = how if key in step.reads else f"{how} and is not read"
    return entered
