"""The receive buffer of vLLM's V1 runner on a CPU, where no warm-up run has made it.

The CPU worker skips the warm-up in eager mode since vLLM 0.27.1 (PR #50547), and the runner makes
its buffer there and nowhere else.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from .wrap import after_cpu_worker


def install(acts: Callable[[], None]) -> None:
    """Patch vLLM's CPU worker; `acts` is called where a buffer is made."""
    after_cpu_worker("compile_or_warm_up_model", partial(_make, acts))


def _make(acts: Callable[[], None], worker: Any) -> None:
    """Make the buffer as the runner's own warm-up would, if there is none by now."""
    from vllm.distributed.parallel_state import get_pp_group

    runner = worker.model_runner
    if runner.intermediate_tensors is None and not get_pp_group().is_first_rank:
        runner.intermediate_tensors = runner.get_model().make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
        )
        acts()
