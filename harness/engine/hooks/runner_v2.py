"""The adapter for vLLM's V2 model runner (`vllm.v1.worker.gpu.model_runner`).

It copies the keys that were *declared* into the receive buffer, inline: a key that was not sent is
a KeyError, one that was not declared is dropped in silence.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from .batch import begin_batch
from .calls import record_failure
from .step import RowSpan
from .tracer import Tracer
from .wrap import wrap

NAME = "v2"


def install(tracer: Tracer, runner: type) -> None:
    """Patch a runner class so that it feeds `tracer`."""
    from vllm.v1.worker.gpu.async_utils import AsyncOutput

    wrap(AsyncOutput, "get_output", partial(record_failure, tracer, "get_output"))
    wrap(runner, "add_requests", _add_requests)
    wrap(runner, "prepare_inputs", partial(_prepare_inputs, tracer))
    if tracer.tracing:
        wrap(runner, "execute_model", _execute_model)
        wrap(runner, "_dummy_run", tracer.dummy_run)


def _add_requests(
    method: Any, runner: Any, /, scheduler_output: Any, *args: Any, **kwargs: Any
) -> Any:
    """Keep the sampling parameters of running requests: stages before the last forget them."""
    known = runner.__dict__.setdefault("_pp_harness_requests", {})
    for finished in scheduler_output.finished_req_ids:
        known.pop(finished, None)
    for new in scheduler_output.scheduled_new_reqs:
        known[new.req_id] = (new.sampling_params, len(new.prompt_token_ids))
    return method(runner, scheduler_output, *args, **kwargs)


def _prepare_inputs(tracer: Tracer, method: Any, runner: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Begin the step once the batch is settled, and record what arrived."""
    batch = method(runner, *args, **kwargs)
    begin_batch(tracer, runner, _spans(runner, batch))
    given = getattr(runner, "_pp_harness_given", None)
    if given is not None and tracer.step is not None:
        tracer.boundary("received", dict(dict.items(given.tensors)))
    return batch


def _spans(runner: Any, batch: Any) -> Iterator[RowSpan | None]:
    """Yield the rows of each request in batch order."""
    starts = runner.req_states.num_computed_tokens_np[batch.idx_mapping_np]
    for request_id, start, count in zip(
        batch.req_ids, starts, batch.num_scheduled_tokens, strict=True
    ):
        sampling_params, prompt_length = runner._pp_harness_requests[request_id]
        yield RowSpan.of_request(
            sampling_params, start=int(start), count=int(count), prompt_length=prompt_length
        )


def _execute_model(
    method: Any, runner: Any, scheduler_output: Any, intermediate_tensors: Any = None, **kwargs: Any
) -> Any:
    """Keep what the worker received for `prepare_inputs`, which runs inside this call."""
    runner._pp_harness_given = intermediate_tensors
    try:
        return method(runner, scheduler_output, intermediate_tensors, **kwargs)
    finally:
        runner._pp_harness_given = None
