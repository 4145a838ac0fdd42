"""What each decoder layer left of each row, over all stages of a capture."""

from collections.abc import Collection, Mapping
from typing import Any

from ..capture.record import Capture

# A row of a probe: (request, position).
Row = tuple[str, int]


def layer_rows(
    capture: Capture, kind: str, *, floor: int | None = None
) -> dict[int, dict[Row, Any]]:
    """Map layer and row to a fingerprint (digest, norm or sketch) of the output, over all stages.

    `floor` counts floor passes from 0; None is the first pass over the probes. Rows come in the
    order in which they ran.
    """
    layers: dict[int, dict[Row, Any]] = {}
    for trace in capture.stages.values():
        for step in trace.steps if floor is None else trace.floor_steps[floor]:
            rows = [row for span in step.spans for row in span.rows]
            for layer, fingerprints in step.layers.items():
                layers.setdefault(layer, {}).update(zip(rows, fingerprints[kind], strict=True))
    return layers


def stage_of(capture: Capture, layer: int) -> int:
    """The pipeline stage that holds a layer."""
    return next(stage for stage, trace in capture.stages.items() if layer in trace.layers)


def looks_ahead(capture: Capture, layer: int, moved: Mapping[int, Collection[Row]]) -> bool:
    """Whether the last layer of a stage differs from PP=1 in what no later layer sees.

    Some models compute the norm of the next layer in it, but at a boundary behind it. `moved` has
    the rows that differ behind each layer: what was lost would show behind the next one too.
    """
    if layer + 1 not in moved or stage_of(capture, layer) == stage_of(capture, layer + 1):
        return False
    return not set(moved[layer]) <= set(moved[layer + 1])
