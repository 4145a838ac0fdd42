"""The adapter for vLLM's V2 model runner (`vllm.v1.worker.gpu.model_runner`).

Hook points as of vLLM 0.20.2 and 0.26.0. It copies what was *declared* into the receive buffer,
inline: a key that was not sent is a KeyError, one that was not declared is dropped in silence.
"""

import functools
from typing import Any

from .model import set_spans
from .tracer import RowSpan, Tracer, with_dummy_run
from .wrap import wrap

NAME = "v2"


def install(tracer: Tracer, owner: type) -> None:
    """Patch the runner class `owner` so that it feeds `tracer`."""
    wrap(owner, "add_requests", _with_requests)
    wrap(owner, "prepare_inputs", functools.partial(_with_spans, tracer))
    if not tracer.tracing:
        return
    wrap(owner, "execute_model", _with_given)
    wrap(owner, "_dummy_run", functools.partial(with_dummy_run, tracer))


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
    """After the batch is settled: which rows belong to which probe request, and what arrived."""

    def prepare_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        batch = method(self, *args, **kwargs)
        set_spans(tracer, self, _spans(self, batch))
        given = getattr(self, "_pp_harness_given", None)
        if given is not None and tracer.step is not None:
            tracer.boundary("received", dict(dict.items(given.tensors)))
        return batch

    return prepare_inputs


def _spans(runner: Any, batch: Any) -> tuple[RowSpan, ...]:
    """Return the spans of a step in batch order; empty unless every request is a probe."""
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
    """Keep what the worker received where the batch is settled, inside this call."""

    def execute_model(
        self: Any, scheduler_output: Any, intermediate_tensors: Any = None, **kwargs: Any
    ) -> Any:
        self._pp_harness_given = intermediate_tensors
        try:
            return method(self, scheduler_output, intermediate_tensors, **kwargs)
        finally:
            self._pp_harness_given = None

    return execute_model
