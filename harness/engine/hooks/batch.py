"""The hook that both model runners share: the begin of a step."""

from collections.abc import Iterable
from typing import Any

from . import changes
from .model import decoder_layers
from .step import RowSpan
from .tracer import Tracer


def begin_batch(tracer: Tracer, runner: Any, requests: Iterable[RowSpan | None]) -> None:
    """Begin a step of `runner` with the rows of `requests`, in batch order; None has no mark.

    Rows of probes are traced; rows of any marked request are run under the change that they name.
    A step with a row that is not marked is left alone.
    """
    marked: list[RowSpan] = []
    for span in requests:
        if span is None:
            marked.clear()
            break
        marked.append(span)
    spans = tuple(marked)
    probes = spans if all(span.name for span in spans) else ()
    runner._pp_harness_spans = probes
    if probes:
        tracer.begin_step(probes)
    if any(span.change for span in spans):
        changes.enter(tracer, runner, spans, decoder_layers(runner))
