"""The adapter for vLLM's V1 model runner (`GPUModelRunner`, and `CPUModelRunner` below it).

Hook points as of vLLM 0.20.2. Classes are patched, not instances, so that forked workers inherit
the hooks and spawned ones install them again through the plugin.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import torch

from .extent import plain
from .tensors import traced
from .tracer import RowSpan, Tracer

# The mark that the capture puts on its own requests (SamplingParams.extra_args).
REQUEST_MARK = "pp_harness"
_LAYER_NAME = re.compile(r"^(?P<prefix>(?:.*\.)?layers)\.(?P<index>\d+)$")
# Phases whose exceptions are worth their rank, place and traceback.
_WATCHED = (
    "init_device",
    "load_model",
    "determine_available_memory",
    "initialize_from_config",
    "compile_or_warm_up_model",
    "execute_model",
    "sample_tokens",
)


def _wrap(owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a method that `owner` itself defines by `make(method)`."""
    original = owner.__dict__.get(name)
    if original is not None:
        setattr(owner, name, functools.wraps(original)(make(original)))


def install(tracer: Tracer) -> None:
    """Patch vLLM's worker, model runner and group coordinator so that they feed `tracer`."""
    from vllm.distributed.parallel_state import GroupCoordinator
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    from vllm.v1.worker.gpu_worker import Worker

    workers: list[type] = [Worker]
    try:
        from vllm.v1.worker.cpu_worker import CPUWorker

        workers.append(CPUWorker)
    except ImportError:  # a CUDA build without the CPU operators
        pass

    for worker in workers:
        for phase in _WATCHED:
            _wrap(worker, phase, functools.partial(_with_failures, tracer, phase))
    _wrap(Worker, "load_model", functools.partial(_with_heartbeat, tracer))
    if not tracer.tracing:
        # The control run keeps the forced tokens (same inputs) and drops everything else.
        _wrap(GPUModelRunner, "_update_states", functools.partial(_with_spans, tracer))
        return
    _wrap(Worker, "execute_model", functools.partial(_with_step_end, tracer))
    _wrap(GPUModelRunner, "_update_states", functools.partial(_with_spans, tracer))
    _wrap(
        GPUModelRunner, "sync_and_slice_intermediate_tensors", functools.partial(_with_copy, tracer)
    )
    _wrap(GPUModelRunner, "_dummy_run", functools.partial(_with_dummy, tracer))
    _wrap(GroupCoordinator, "isend_tensor_dict", functools.partial(_with_send, tracer))


def _with_failures(tracer: Tracer, phase: str, method: Any) -> Any:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with tracer.failures(self.rank, phase):
            return method(self, *args, **kwargs)

    return run


def _with_heartbeat(tracer: Tracer, method: Any) -> Any:
    def load_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        from vllm.distributed.parallel_state import get_pp_group, get_tp_group

        pp, tp = get_pp_group(), get_tp_group()
        tracer.start(
            self.rank,
            stage=pp.rank_in_group,
            stages=pp.world_size,
            tp_rank=tp.rank_in_group,
            runner=type(self.model_runner).__name__,
            module=type(self.model_runner).__module__,
            threads=torch.get_num_threads(),
        )
        result = method(self, *args, **kwargs)
        _watch_model(tracer, self.model_runner, pp)
        return result

    return load_model


def _watch_model(tracer: Tracer, runner: Any, pp: Any) -> None:
    """Declared keys, and the hooks on the model object that loading has just made."""
    model = runner.get_model()
    _wrap_logits(tracer, type(model), runner)
    if not tracer.tracing:
        return
    from vllm.sequence import IntermediateTensors

    declared: dict[str, Any] = {}
    error = None
    try:
        empty = model.make_empty_intermediate_tensors(
            batch_size=1, dtype=runner.model_config.dtype, device=runner.device
        )
        declared = {
            key: {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
            if isinstance(value, torch.Tensor)
            else None
            for key, value in empty.items()
        }
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    tracer.write("declared", keys=declared, error=error)

    def before(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        given = kwargs.get("intermediate_tensors")
        if given is None or not tracer.watching:
            return None
        given = IntermediateTensors(tracer.watched(given.tensors), given.kv_connector_output)
        return args, {**kwargs, "intermediate_tensors": traced(given, tracer.note)}

    model.register_forward_pre_hook(before, with_kwargs=True)

    def after(_module: Any, _args: Any, output: Any) -> None:
        if isinstance(output, IntermediateTensors):
            # What a stage only passes on is still watched; vLLM gets the tensor itself.
            output.tensors = {key: plain(value) for key, value in dict.items(output.tensors)}
            tracer.boundary("returned", dict(output.tensors))

    def remember(_module: Any, _args: Any, output: Any) -> None:
        runner._pp_harness_output = output

    # Innermost first: what the decoder returns, before a wrapper's epilogue can touch it.
    for name, module in model.named_modules():
        if name.count(".") <= 1 and name.rpartition(".")[2] in ("", "model", "language_model"):
            module.register_forward_hook(after)
    if pp.is_last_rank:
        model.register_forward_hook(remember)

    for index, module in _decoder_layers(model, runner):
        module.register_forward_hook(
            lambda _module, _args, output, index=index: tracer.layer(index, output)
        )
    tracer.write("layers", indices=[index for index, _ in _decoder_layers(model, runner)])


def _decoder_layers(model: Any, runner: Any) -> list[tuple[int, Any]]:
    """Return this rank's decoder layers with their absolute index, vision towers left out."""
    from vllm.model_executor.models.utils import PPMissingLayer

    total = runner.model_config.get_total_num_hidden_layers()
    stacks: dict[str, list[tuple[int, Any]]] = {}
    for name, module in model.named_modules():
        if match := _LAYER_NAME.match(name):
            stacks.setdefault(match["prefix"], []).append((int(match["index"]), module))
    for stack in stacks.values():
        if len(stack) == total:
            return [(i, m) for i, m in stack if not isinstance(m, PPMissingLayer)]
    return []


def _wrap_logits(tracer: Tracer, model_class: type, runner: Any) -> None:
    """Take the raw logits of probe rows and hand the sampler one-hot rows for the forced ids."""
    original = model_class.compute_logits  # type: ignore[attr-defined]
    if hasattr(original, "_pp_harness"):
        return

    @functools.wraps(original)
    def compute_logits(self: Any, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        logits = original(self, hidden, *args, **kwargs)
        spans: tuple[RowSpan, ...] = getattr(runner, "_pp_harness_spans", ())
        if not spans or self is not runner.get_model():
            return logits
        if logits is not None:
            tracer.logits(spans, logits)
        # Whole prompts: only where a step schedules more rows than it samples.
        if tracer.step is not None and tracer.step.rows > len(spans):
            output = runner._pp_harness_output
            everything = output[0] if isinstance(output, tuple) else output
            tracer.prompt_logits(
                spans, everything, lambda rows: original(self, rows, *args, **kwargs)
            )
        if logits is None:
            return None
        forced = torch.zeros_like(logits)
        for row, span in enumerate(spans):
            step = span.start + span.count - span.prompt_length
            if 0 <= step < len(span.forced):
                forced[row, span.forced[step]] = 1.0
            else:  # a chunk of a prompt: the engine throws this sample away
                forced[row] = logits[row]
        return forced

    compute_logits._pp_harness = True  # type: ignore[attr-defined]
    model_class.compute_logits = compute_logits  # type: ignore[attr-defined]


def _with_spans(tracer: Tracer, method: Any) -> Any:
    """After the batch is settled: which rows belong to which probe request."""

    def update_states(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, scheduler_output, *args, **kwargs)
        spans = _spans(self, scheduler_output)
        self._pp_harness_spans = spans
        if spans:
            tracer.begin_step(spans)
        return result

    return update_states


def _spans(runner: Any, scheduler_output: Any) -> tuple[RowSpan, ...]:
    """Return the spans of a step in batch order; empty unless every request is a probe."""
    spans = []
    for index, request_id in enumerate(runner.input_batch.req_ids):
        state = runner.requests[request_id]
        extra = state.sampling_params.extra_args if state.sampling_params else None
        mark = (extra or {}).get(REQUEST_MARK)
        count = scheduler_output.num_scheduled_tokens.get(request_id, 0)
        if mark is None or count == 0:
            return ()
        spans.append(
            RowSpan(
                mark["request"],
                int(runner.input_batch.num_computed_tokens_cpu[index]),
                count,
                len(state.prompt_token_ids),
                tuple(mark["forced"]),
            )
        )
    return tuple(spans)


def _with_step_end(tracer: Tracer, method: Any) -> Any:
    """A step is over when the worker is: after the send, which the runner does not see."""

    def execute_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        finally:
            tracer.end_step()

    return execute_model


def _with_copy(tracer: Tracer, method: Any) -> Any:
    """Around the copy into the runner's own receive buffer."""

    def sync_and_slice(self: Any, num_tokens: int, given: Any, sync_self: bool) -> Any:
        if not sync_self or tracer.step is None:
            return method(self, num_tokens, given, sync_self)
        tracer.boundary("received", dict(dict.items(given.tensors)))
        for value in self.intermediate_tensors.tensors.values():
            # A key that is not copied now would be read stale: NaN makes that visible.
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                value[:num_tokens].fill_(float("nan"))
        result = method(self, num_tokens, given, sync_self)
        tracer.boundary("copied", dict(dict.items(result.tensors)))
        return result

    return sync_and_slice


def _with_dummy(tracer: Tracer, method: Any) -> Any:
    def dummy_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with tracer.dummy_run():
            return method(self, *args, **kwargs)

    return dummy_run


def _with_send(tracer: Tracer, method: Any) -> Any:
    def isend_tensor_dict(self: Any, tensor_dict: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if tracer.step is not None and self.unique_name.startswith("pp"):
            tracer.boundary("sent", dict(dict.items(tensor_dict)))
        return method(self, tensor_dict, *args, **kwargs)

    return isend_tensor_dict
