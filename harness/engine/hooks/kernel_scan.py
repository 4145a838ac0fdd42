"""The scan by which vLLM's CPU platform puts its own functions in the place of Triton's kernels.

It asks every object of every imported module for its `vars()`. llvmlite's library, imported with
numba by most multimodal models, answers to any name, `__dict__` too, with an object of its own.
"""

import builtins
from collections.abc import Callable, Mapping
from typing import Any


def install(acts: Callable[[], None]) -> None:
    """Give the scan a `vars` that always returns a mapping; `acts` is called where it did not."""
    try:
        from vllm.triton_utils import dispatcher
    except ImportError:  # a release before the scan
        return

    def attributes(value: Any) -> Mapping[str, Any]:
        found: Any = builtins.vars(value)
        if isinstance(found, Mapping):
            return found
        acts()
        return {}

    dispatcher.vars = attributes
