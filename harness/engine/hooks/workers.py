"""The hooks that every model runner shares: on the worker, and on what it sends.

The runner has an adapter of its own, chosen as the worker loads its model: which runner is in
effect is vLLM's decision, from the model, the platform and the environment.
"""

import resource
from functools import partial
from types import ModuleType
from typing import Any

import torch
from vllm.distributed.parallel_state import GroupCoordinator, get_pp_group, get_tp_group

from ..process_groups import end_with_parent
from . import changes, deaths, position, runner_v1, runner_v2, stacks, workarounds
from .calls import record_failure, watch_calls
from .model import watch_model
from .position import Position
from .tracer import Tracer
from .wrap import HookError, names_of_vllm, wrap

# By the module of a runner's class or of one that it inherits from.
_ADAPTERS = {
    "vllm.v1.worker.gpu_model_runner": runner_v1,
    "vllm.v1.worker.gpu.model_runner": runner_v2,
}


def install(tracer: Tracer) -> None:
    """Patch vLLM's workers and group coordinator so that they feed `tracer`.

    Raises:
        HookError: if this vLLM lacks a name that is to be patched.
    """
    here = Position()
    worker = _worker_class()
    wrap(worker, "init_device", partial(_init_device, tracer, here))
    wrap(worker, "load_model", partial(_load_model, tracer, here))
    # The engine asks each rank for these: before and after its probes, and at the end.
    worker.pp_harness_flush = lambda _worker: tracer.flush()
    worker.pp_harness_workarounds = workarounds.acted
    worker.pp_harness_peak_bytes = lambda _worker: _peak_bytes(tracer.device)
    wrap(worker, "execute_model", partial(_execute_model, tracer))
    deaths.install(tracer.folder)
    from vllm.v1.executor.multiproc_executor import WorkerProc

    wrap(WorkerProc, "__init__", partial(record_failure, tracer, "start"))
    # A control run keeps the forced tokens (same inputs) and drops everything else.
    if tracer.tracing:
        wrap(worker, "sample_tokens", _sample_tokens)
        wrap(GroupCoordinator, "isend_tensor_dict", partial(_send, tracer))
        position.install(here)
    watch_calls(tracer, here, worker)


def _worker_class() -> Any:
    """Return the class of this platform's workers."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        # Not after the GPU worker: it replaces functions that others import by name, which
        # on a GPU breaks the streams (vLLM 0.26.0).
        from vllm.v1.worker.cpu_worker import CPUWorker

        return CPUWorker
    from vllm.v1.worker.gpu_worker import Worker

    return Worker


def _peak_bytes(device: torch.device) -> int:
    """Return the most memory that this rank has held: of its GPU by torch, resident on the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _adapter(runner: Any) -> ModuleType:
    """Return the adapter of a model runner."""
    for owner in type(runner).__mro__:
        if owner.__module__ in _ADAPTERS:
            return _ADAPTERS[owner.__module__]
    name = f"{type(runner).__module__}.{type(runner).__name__}"
    raise HookError(f"there is no adapter for its model runner {name}")


def _init_device(
    tracer: Tracer, here: Position, method: Any, worker: Any, /, *args: Any, **kwargs: Any
) -> Any:
    """Begin the position and the stacks of a rank: this is the first that it does."""
    if not here.is_open:
        if worker.parallel_config.distributed_executor_backend == "mp":
            # A rank that waits inside compiled code would never notice that it is alone.
            end_with_parent()
        stacks.arm(tracer.folder, f"rank{worker.rank}")
        here.open(tracer.folder, worker.rank)
    return method(worker, *args, **kwargs)


def _load_model(
    tracer: Tracer, here: Position, method: Any, worker: Any, /, *args: Any, **kwargs: Any
) -> Any:
    """Write the heartbeat, and hook the runner before and the model after it is made."""
    pp, tp = get_pp_group(), get_tp_group()
    here.stage(pp.rank_in_group, tp.rank_in_group)
    runner = worker.model_runner
    adapter = _adapter(runner)
    tracer.start(
        worker.rank,
        stage=pp.rank_in_group,
        stages=pp.world_size,
        tp_rank=tp.rank_in_group,
        device=runner.device,
        runner=type(runner).__name__,
        module=type(runner).__module__,
        adapter=adapter.NAME,
        threads=torch.get_num_threads(),
        eager=runner.model_config.enforce_eager,
    )
    with names_of_vllm():
        adapter.install(tracer, type(runner))
    result = method(worker, *args, **kwargs)
    watch_model(tracer, runner, is_last=pp.is_last_rank)
    return result


def _execute_model(tracer: Tracer, method: Any, /, *args: Any, **kwargs: Any) -> Any:
    """End a step with the worker's call: after the send, which the runner does not see.

    Its fingerprints are taken while another stage works: on the last stage, for which the engine
    waits now, before the next step reaches it.
    """
    tracer.settle()
    try:
        return method(*args, **kwargs)
    finally:
        tracer.end_step()
        if not get_pp_group().is_last_rank:
            tracer.settle()
            changes.leave()


def _sample_tokens(method: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Undo a change on the last stage once it has sampled: V2 computes logits only then."""
    try:
        return method(*args, **kwargs)
    finally:
        changes.leave()


def _send(
    tracer: Tracer, method: Any, group: Any, /, tensor_dict: Any, *args: Any, **kwargs: Any
) -> Any:
    if tracer.step is not None and group is get_pp_group():
        tracer.boundary("sent", dict(dict.items(tensor_dict)))
    return method(group, tensor_dict, *args, **kwargs)
