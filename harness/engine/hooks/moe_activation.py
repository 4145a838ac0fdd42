"""The gated SiLU of vLLM 0.20.2's mixture of experts in torch, on a CPU.

Its table of activations makes a new `SiluAndMul` at each call, outside a configuration: an
AssertionError for every such model whose experts the compiled kernel refuses, as it does for other
types than bfloat16 on a processor with AMX.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from .wrap import after_cpu_worker

_TABLE = "vllm.model_executor.layers.fused_moe.cpu_fused_moe"


def install(acts: Callable[[], None]) -> None:
    """Patch vLLM's CPU worker; `acts` is called where the function is replaced."""
    after_cpu_worker("load_model", partial(_replace, acts))


def _replace(acts: Callable[[], None], _worker: Any) -> None:
    """Put the function that makes no object, as later releases have it; a table unread is none."""
    table = sys.modules.get(_TABLE)
    if table is not None:
        functions, silu = table._CPU_MOE_ACT_FN, table.MoEActivation.SILU
        if functions[silu] is not table.SiluAndMul.forward_native:
            functions[silu] = table.SiluAndMul.forward_native
            acts()
