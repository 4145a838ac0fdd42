"""The place where a difference enters: the first decoder layer that differs, and what fed it."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
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


def layer_rows(
    capture: Capture, kind: str, *, floor: int | None = None
) -> dict[int, dict[Row, Any]]:
    """Map layer and row to a fingerprint (digest, norm or sketch) of the output, over all stages.

    `floor` counts floor passes from 0; None is the first pass over the probes. Rows come in the
    order in which they ran.
    """
    layers: dict[int, dict[Row, Any]] = {}
    for trace in capture.stages.values():
        passes = [trace.steps] if floor is None else trace.floor_steps[floor : floor + 1]
        for step in chain.from_iterable(passes):
            rows = [row for span in step.spans for row in span.rows]
            for layer, fingerprints in step.layers.items():
                layers.setdefault(layer, {}).update(zip(rows, fingerprints[kind], strict=True))
    return layers


def stage_of(capture: Capture, layer: int) -> int:
    """The pipeline stage that holds a layer."""
    return next(stage for stage, trace in capture.stages.items() if layer in trace.layers)


def locate(baseline: Capture, candidate: Capture, *, bits: bool = True) -> Location | None:
    """Find where `candidate` first differs from `baseline`; None if no layer differs.

    Layers are walked in order, then rows in the order in which they ran, so that the answer is
    the layer nearest to the cause. Both captures must hold the same probe rows. Without `bits` a
    row differs where it is further away than rounding takes it at that layer at PP=1.
    """
    if not bits:
        return _locate_beyond_noise(baseline, candidate)
    before, after = layer_rows(baseline, "digest"), layer_rows(candidate, "digest")
    for layer in sorted(set(before) & set(after)):
        for row, digest in before[layer].items():
            if row in after[layer] and after[layer][row] != digest:
                return _describe(candidate, layer, row)
    return None


def _locate_beyond_noise(baseline: Capture, candidate: Capture) -> Location | None:
    before, after = _fingerprints(baseline), _fingerprints(candidate)
    again = _fingerprints(baseline, floor=0)
    dtype = baseline.cell.dtype
    layers = sorted(set(before["digest"]) & set(after["digest"]))
    for depth, layer in enumerate(layers, start=1):
        floor = _distances(before, again, layer)
        apart = _distances(before, after, layer)
        noise = tolerance(np.array(list(floor.values())), len(apart), dtype, layers=depth)
        # In the first layers few rows move, and each by a bit or two: the next batch may do more.
        limit = max(noise.limit, rounding(dtype, depth))
        for row, far in apart.items():
            if not far <= limit:  # NaN is beyond any limit
                return _describe(candidate, layer, row, (far, limit))
    return None


# Kind of fingerprint -> layer -> row -> value.
_Fingerprints = Mapping[str, Mapping[int, Mapping[Row, Any]]]


def _fingerprints(capture: Capture, *, floor: int | None = None) -> _Fingerprints:
    return {kind: layer_rows(capture, kind, floor=floor) for kind in ("digest", "norm", "sketch")}


def _distances(before: _Fingerprints, after: _Fingerprints, layer: int) -> dict[Row, float]:
    """Estimate how far each row's output is from its baseline, relative to its size.

    Equal bits are 0 apart, whatever rounding does to the sums that their sketches are.
    """
    distances = {}
    digests = after["digest"].get(layer, {})
    for row, digest in before["digest"][layer].items():
        if digests.get(row) == digest:
            distances[row] = 0.0
        elif row in digests:
            apart = np.subtract(before["sketch"][layer][row], after["sketch"][layer][row])
            far, norm = float(np.sqrt(np.mean(apart**2))), before["norm"][layer][row]
            distances[row] = far / norm if norm else far
    return distances


def _describe(
    candidate: Capture, layer: int, row: Row, beyond: tuple[float, float] | None = None
) -> Location:
    stage, (request, position) = stage_of(candidate, layer), row
    entered = _entered(candidate, stage, row)
    fed = "".join(f"{key} {how}; " for key, how in entered.items())
    sentence = (
        f"stage {stage}, layer {layer}: {fed}first difference after layer {layer} at "
        f"{request} position {position}"
    )
    if beyond:
        sentence += f", {beyond[0]:.2g} of its size where rounding takes it {beyond[1]:.2g}"
    return Location(layer, stage, request, position, entered, sentence, beyond)


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
