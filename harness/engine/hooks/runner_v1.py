"""The adapter for vLLM's V1 model runner (`GPUModelRunner`, and `CPUModelRunner` below it).

It copies the keys that were *sent* into its own receive buffer: a key that was not sent is read
stale, one that was not declared is a KeyError.
"""

import functools
from typing import Any

import torch

from .batch import begin_batch, with_dummy_run
from .calls import with_failures
from .step import RowSpan
from .tracer import Tracer
from .wrap import names_of_vllm, wrap, wrap_any

NAME = "v1"
# The copy into the receive buffer: since 0.26.0 it gathers what sequence parallelism scattered.
_COPIES = ("sync_and_slice_intermediate_tensors", "sync_and_gather_intermediate_tensors")


def install(tracer: Tracer, runner: type) -> None:
    """Patch a runner class so that it feeds `tracer`."""
    with names_of_vllm():
        from vllm.v1.worker.gpu_model_runner import AsyncGPUModelRunnerOutput

    wrap(
        AsyncGPUModelRunnerOutput,
        "get_output",
        functools.partial(with_failures, tracer, "get_output"),
    )
    wrap(runner, "_update_states", functools.partial(_with_spans, tracer))
    if not tracer.tracing:
        return
    wrap_any(runner, _COPIES, functools.partial(_with_copy, tracer))
    wrap(runner, "_dummy_run", functools.partial(with_dummy_run, tracer))


def _with_spans(tracer: Tracer, method: Any) -> Any:
    """Begin the step once the batch is settled: its rows belong to requests then."""

    def update_states(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, scheduler_output, *args, **kwargs)
        begin_batch(tracer, self, _spans(self, scheduler_output))
        return result

    return update_states


def _spans(runner: Any, scheduler_output: Any) -> tuple[RowSpan, ...]:
    """Return the spans of a step in batch order; empty unless every request is marked."""
    spans = []
    for index, request_id in enumerate(runner.input_batch.req_ids):
        state = runner.requests[request_id]
        span = RowSpan.of_request(
            state.sampling_params,
            start=int(runner.input_batch.num_computed_tokens_cpu[index]),
            count=scheduler_output.num_scheduled_tokens.get(request_id, 0),
            prompt_length=len(state.prompt_token_ids),
        )
        if span is None:
            return ()
        spans.append(span)
    return tuple(spans)


def _with_copy(tracer: Tracer, method: Any) -> Any:
    """Record what arrived, and fill the receive buffer with NaN before the copy into it."""

    def sync(self: Any, num_tokens: int, given: Any, sync_self: bool) -> Any:
        if sync_self and tracer.step is not None:
            tracer.boundary("received", dict(dict.items(given.tensors)))
            # No buffer is for vLLM to complain of.
            buffer = self.intermediate_tensors
            for value in buffer.tensors.values() if buffer is not None else ():
                # A key that is not copied now would be read stale: NaN makes that visible.
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    value[:num_tokens].fill_(float("nan"))
        return method(self, num_tokens, given, sync_self)

    return sync
