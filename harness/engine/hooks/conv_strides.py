"""The convolution of linear attention on a CPU, for a prompt of one token.

Its kernel demands of `x` [channels, tokens] that tokens lie one row of channels apart. Of one token
there is no such distance, and a slice of a wider projection keeps that of the projection, which
`contiguous()` leaves as it is: the kernel refuses it.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from .wrap import after_cpu_worker

# It is there once a model with such layers is, and calls the kernel by this name of its own.
_LAYERS = "vllm.model_executor.layers.mamba.ops.cpu.gdn_attention"
_NAME = "_causal_conv1d_fwd_cpu"


def install(acts: Callable[[], None]) -> None:
    """Patch vLLM's CPU worker; `acts` is called where the function is replaced."""
    after_cpu_worker("load_model", partial(_replace, acts))


def _replace(acts: Callable[[], None], _worker: Any) -> None:
    """Put the distance right before the kernel; a release without the function needs nothing."""
    layers = sys.modules.get(_LAYERS)
    original = getattr(layers, _NAME, None)
    if original is not None and not isinstance(original, partial):
        setattr(layers, _NAME, partial(_convolve, original))
        acts()


def _convolve(original: Callable[..., Any], *, x: Any, **others: Any) -> Any:
    if x.size(1) == 1:
        x = x.as_strided(x.shape, (1, x.size(0)))
    return original(x=x, **others)
