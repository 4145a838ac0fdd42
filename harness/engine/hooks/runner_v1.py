"""The adapter for vLLM's V1 model runner (`GPUModelRunner`, and `CPUModelRunner` below it).

It copies the keys that were *sent* into its own receive buffer: a key that was not sent is read
stale, one that was not declared is a KeyError.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from .batch import begin_batch
from .calls import record_failure
from .site import COPIES
from .step import RowSpan
from .tracer import Tracer
from .wrap import wrap

NAME = "v1"


def install(tracer: Tracer, runner: type) -> None:
    """Patch a runner class so that it feeds `tracer`."""
    from vllm.v1.worker.gpu_model_runner import AsyncGPUModelRunnerOutput

    wrap(AsyncGPUModelRunnerOutput, "get_output", partial(record_failure, tracer, "get_output"))
    wrap(runner, "_update_states", partial(_update_states, tracer))
    if tracer.tracing:
        wrap(runner, COPIES, partial(_sync, tracer))
        wrap(runner, "_dummy_run", tracer.dummy_run)


def _update_states(
    tracer: Tracer, method: Any, runner: Any, /, scheduler_output: Any, *args: Any, **kwargs: Any
) -> Any:
    """Begin the step once the batch is settled: its rows belong to requests then."""
    result = method(runner, scheduler_output, *args, **kwargs)
    begin_batch(tracer, runner, _spans(runner, scheduler_output))
    return result


def _spans(runner: Any, scheduler_output: Any) -> Iterator[RowSpan | None]:
    """Yield the rows of each request in batch order."""
    for index, request_id in enumerate(runner.input_batch.req_ids):
        state = runner.requests[request_id]
        yield RowSpan.of_request(
            state.sampling_params,
            start=int(runner.input_batch.num_computed_tokens_cpu[index]),
            count=scheduler_output.num_scheduled_tokens.get(request_id, 0),
            prompt_length=len(state.prompt_token_ids),
        )


def _sync(
    tracer: Tracer, method: Any, runner: Any, num_tokens: int, given: Any, sync_self: bool
) -> Any:
    """Record what arrived, and fill the receive buffer with NaN before the copy into it."""
    if sync_self and tracer.step is not None:
        tracer.boundary("received", dict(dict.items(given.tensors)))
        # No buffer is for vLLM to complain of.
        buffer = runner.intermediate_tensors
        for value in buffer.tensors.values() if buffer is not None else ():
            # A key that is not copied now would be read stale: NaN makes that visible.
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                value[:num_tokens].fill_(float("nan"))
    return method(runner, num_tokens, given, sync_self)
