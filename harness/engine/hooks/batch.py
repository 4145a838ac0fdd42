"""The hooks that both model runners share: the begin of a step, and runs that are none."""

from typing import Any

from . import changes
from .model import decoder_layers
from .step import RowSpan
from .tracer import Tracer


def begin_batch(tracer: Tracer, runner: Any, spans: tuple[RowSpan, ...]) -> None:
    """Begin a step of `runner` whose rows are those of `spans`; empty: not every row is marked.

    Rows of probes are traced; rows of any marked request are run under the change that they name.
    """
    probes = spans if all(span.name for span in spans) else ()
    runner._pp_harness_spans = probes
    if probes:
        tracer.begin_step(probes)
    if any(span.change for span in spans):
        changes.enter(tracer, runner, spans, dict(decoder_layers(runner.get_model(), runner)))


def dummy_run(tracer: Tracer, method: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Mark all within a runner's `_dummy_run` as profiling or warm-up."""
    with tracer.dummy_run():
        return method(*args, **kwargs)
