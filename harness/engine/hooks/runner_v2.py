"""The adapter for vLLM's V2 model runner (`vllm.v1.worker.gpu.model_runner`).

It copies the keys that were *declared* into the receive buffer, inline: a key that was not sent is
a KeyError, one that was not declared is dropped in silence.
"""

import functools
from typing import Any

from .batch import begin_batch, with_dummy_run
from .calls import with_failures
from .step import RowSpan
from .tracer import Tracer
from .wrap import names_of_vllm, wrap

NAME = "v2"


def install(tracer: Tracer, runner: type) -> None:
    """Patch a runner class so that it feeds `tracer`."""
    with names_of_vllm():
        from vllm.v1.worker.gpu.async_utils import AsyncOutput

    wrap(AsyncOutput, "get_output", functools.partial(with_failures, tracer, "get_output"))
    wrap(runner, "add_requests", _with_requests)
    wrap(runner, "prepare_inputs", functools.partial(_with_spans, tracer))
    if not tracer.tracing:
        return
    wrap(runner, "execute_model", _with_given)
    wrap(runner, "_dummy_run", functools.partial(with_dummy_run, tracer))


def _with_requests(method: Any) -> Any:
    """Keep the sampling parameters of running requests: stages before the last forget them."""

    def add_requests(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        known = self.__dict__.setdefault("_pp_harness_requests", {})
        for finished in scheduler_output.finished_req_ids:
            known.pop(finished, None)
        for new in scheduler_output.scheduled_new_reqs:
            known[new.req_id] = (new.sampling_params, len(new.prompt_token_ids))
        return method(self, scheduler_output, *args, **kwargs)

    return add_requests


def _with_spans(tracer: Tracer, method: Any) -> Any:
    """Begin the step once the batch is settled, and record what arrived."""

    def prepare_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        batch = method(self, *args, **kwargs)
        begin_batch(tracer, self, _spans(self, batch))
        given = getattr(self, "_pp_harness_given", None)
        if given is not None and tracer.step is not None:
            tracer.boundary("received", dict(dict.items(given.tensors)))
        return batch

    return prepare_inputs


def _spans(runner: Any, batch: Any) -> tuple[RowSpan, ...]:
    """Return the spans of a step in batch order; empty unless every request is marked."""
    starts = runner.req_states.num_computed_tokens_np[batch.idx_mapping_np]
    spans = []
    for request_id, start, count in zip(
        batch.req_ids, starts, batch.num_scheduled_tokens, strict=True
    ):
        sampling_params, prompt_length = runner._pp_harness_requests[request_id]
        span = RowSpan.of_request(
            sampling_params, start=int(start), count=int(count), prompt_length=prompt_length
        )
        if span is None:
            return ()
        spans.append(span)
    return tuple(spans)


def _with_given(method: Any) -> Any:
    """Keep what the worker received for `prepare_inputs`, which runs inside this call."""

    def execute_model(
        self: Any, scheduler_output: Any, intermediate_tensors: Any = None, **kwargs: Any
    ) -> Any:
        self._pp_harness_given = intermediate_tensors
        try:
            return method(self, scheduler_output, intermediate_tensors, **kwargs)
        finally:
            self._pp_harness_given = None

    return execute_model
