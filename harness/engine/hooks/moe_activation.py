"""The gated SiLU of vLLM 0.20.2's mixture of experts in torch, on a CPU.

Its table of activations makes a new `SiluAndMul` at each call, outside a configuration: an
AssertionError for every such model whose experts the compiled kernel refuses, as it does for other
types than bfloat16 on a processor with AMX.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from .wrap import names_of_vllm, wrap

_TABLE = "vllm.model_executor.layers.fused_moe.cpu_fused_moe"


def install(acts: Callable[[], None]) -> None:
    """Patch vLLM's CPU worker; `acts` is called where the function is replaced."""
    with names_of_vllm():
        from vllm.v1.worker.cpu_worker import CPUWorker

    wrap(CPUWorker, "load_model", partial(_after_load, acts))


def _after_load(
    acts: Callable[[], None], method: Any, worker: Any, /, *args: Any, **kwargs: Any
) -> Any:
    """Put the function that makes no object, as later releases have it; a table unread is none."""
    result = method(worker, *args, **kwargs)
    table = sys.modules.get(_TABLE)
    if table is not None:
        functions, silu = table._CPU_MOE_ACT_FN, table.MoEActivation.SILU
        if functions[silu] is not table.SiluAndMul.forward_native:
            functions[silu] = table.SiluAndMul.forward_native
            acts()
    return result
