"""Where a difference enters: the first decoder layer whose output differs, and what fed it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...capture.record import Capture
from .noise import rounding, tolerance

# A row of a probe: (request, position).
Row = tuple[str, int]


@dataclass(frozen=True)
class Location:
    """The first difference in travel order. `sentence` is the whole story in one line.

    `beyond` is how far the row is from its baseline and how far rounding takes one there, both
    relative to its size; None where bits are compared.
    """

    layer: int
    stage: int
    request: str
    position: int
    entered: dict[str, str]
    sentence: str
    beyond: tuple[float, float] | None = None


def layer_rows(capture: Capture, what: str, *, again: bool = False) -> dict[int, dict[Row, Any]]:
    """Return layer -> row -> `what` of its output (digest, norm or sketch), over all stages.

    Rows come in the order in which they ran; `again` takes those of the second pass.
    """
    found: dict[int, dict[Row, Any]] = {}
    for trace in capture.stages.values():
        for step in trace.second_pass if again else trace.steps:
            rows = [row for span in step.spans for row in span.rows]
            for layer, content in step.layers.items():
                found.setdefault(layer, {}).update(zip(rows, content[what], strict=True))
    return found


def locate(baseline: Capture, candidate: Capture, *, bits: bool = True) -> Location | None:
    """Return where `candidate` first differs from `baseline`; None if no layer differs.

    Layers are walked in order, then rows in the order in which they ran, so that the answer is
    the layer nearest to the cause. Both captures must hold the same probe rows. Without `bits` a
    row differs where it is further away than rounding takes it at that layer at PP=1.
    """
    if not bits:
        return _locate_beyond_noise(baseline, candidate)
    left, right = (layer_rows(one, "digest") for one in (baseline, candidate))
    for layer in sorted(set(left) & set(right)):
        for row, digest in left[layer].items():
            if row in right[layer] and right[layer][row] != digest:
                return _describe(candidate, layer, row)
    return None


def _locate_beyond_noise(baseline: Capture, candidate: Capture) -> Location | None:
    left, right, again = _prints(baseline), _prints(candidate), _prints(baseline, again=True)
    dtype = baseline.cell.dtype
    layers = sorted(set(left["digest"]) & set(right["digest"]))
    for depth, layer in enumerate(layers, start=1):
        floor = _distances(left, again, layer)
        apart = _distances(left, right, layer)
        noise = tolerance(np.array(list(floor.values())), len(apart), dtype, layers=depth)
        # In the first layers few rows move, and each by a bit or two: the next batch may do more.
        limit = max(noise.limit, rounding(dtype, depth))
        for row, far in apart.items():
            if not far <= limit:  # NaN is beyond any limit
                return _describe(candidate, layer, row, (far, limit))
    return None


def _prints(capture: Capture, *, again: bool = False) -> dict[str, dict[int, dict[Row, Any]]]:
    return {what: layer_rows(capture, what, again=again) for what in ("digest", "norm", "sketch")}


def _distances(
    left: Mapping[str, Mapping[int, Mapping[Row, Any]]],
    right: Mapping[str, Mapping[int, Mapping[Row, Any]]],
    layer: int,
) -> dict[Row, float]:
    """Estimate how far each row's output is from its baseline, relative to its size.

    Equal bits are 0 apart, whatever rounding does to the sums that their sketches are.
    """
    found = {}
    there = right["digest"].get(layer, {})
    for row, digest in left["digest"][layer].items():
        if there.get(row) == digest:
            found[row] = 0.0
        elif row in there:
            apart = np.subtract(left["sketch"][layer][row], right["sketch"][layer][row])
            far, norm = float(np.sqrt(np.mean(apart**2))), left["norm"][layer][row]
            found[row] = far / norm if norm else far
    return found


def _describe(
    candidate: Capture, layer: int, row: Row, beyond: tuple[float, float] | None = None
) -> Location:
    stage = next(number for number, trace in candidate.stages.items() if layer in trace.layers)
    trace = candidate.stages[stage]
    entered: dict[str, str] = {}
    if stage > 0:
        sender = candidate.stages[stage - 1]
        step = next(
            index
            for index, one in enumerate(trace.steps)
            if row in {r for span in one.spans for r in span.rows}
        )
        here = trace.steps[step]
        there = sender.steps[step] if step < len(sender.steps) else here
        for key in sorted(set(there.sent or {}) | set(trace.declared or {})):
            entered[key] = _arrival(
                (there.sent or {}).get(key), (here.copied or {}).get(key), key in here.reads
            )
    came = "; ".join(f"{key} {how}" for key, how in entered.items())
    sentence = (
        f"stage {stage}, layer {layer}: "
        + (f"{came}; " if came else "")
        + f"first difference after layer {layer} at {row[0]} position {row[1]}"
        + (
            f", {beyond[0]:.2g} of its size where rounding takes it {beyond[1]:.2g}"
            if beyond
            else ""
        )
    )
    return Location(layer, stage, row[0], row[1], entered, sentence, beyond)


def _arrival(sent: dict[str, object] | None, copied: dict[str, object] | None, read: bool) -> str:
    if sent is None:
        how = "is not sent"
    elif copied is not None and sent.get("digest") != copied.get("digest"):
        how = "arrives changed"
    else:
        how = "arrives equal"
    return how if read else f"{how} and is not read"
