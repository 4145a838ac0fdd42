"""Permission to use AMX, asked of Linux before vLLM's attention on a CPU uses it in bfloat16.

Linux kills a process that uses tiles without having asked. oneDNN asks as it multiplies matrices,
vLLM's attention does not: where no warm-up multiplied before, a first request of one token, which
is multiplied without tiles, ends in an illegal instruction.
"""

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

from .wrap import after_cpu_worker

# arch_prctl(ARCH_GET_XCOMP_PERM) of x86-64, and the bit of the tiles' data in its answer.
_ARCH_PRCTL, _GET_PERMISSION, _TILES = 158, 0x1022, 1 << 18


def install(acts: Callable[[], None]) -> None:
    """Patch vLLM's CPU worker; `acts` is called where permission is asked for."""
    after_cpu_worker("compile_or_warm_up_model", partial(_ask, acts))


def _ask(acts: Callable[[], None], worker: Any) -> None:
    import torch

    is_bfloat16 = worker.vllm_config.model_config.dtype is torch.bfloat16
    if is_bfloat16 and torch.cpu._is_amx_tile_supported() and not may_use_tiles():
        torch.cpu._init_amx()
        acts()


def may_use_tiles() -> bool:
    """Whether Linux lets this process use tiles."""
    granted = ctypes.c_uint64(0)
    ctypes.CDLL(None).syscall(_ARCH_PRCTL, _GET_PERMISSION, ctypes.byref(granted))
    return bool(granted.value & _TILES)
