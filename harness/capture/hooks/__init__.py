"""What runs inside vLLM's processes: a plugin that records and, outside a capture, does nothing.

vLLM loads `register` in every process through the entry point group `vllm.general_plugins`, which
the variant tree's own metadata names. An environment that holds vLLM need not hold the harness, so
nothing here may import what it lacks: the standard library, torch and vLLM alone.
"""

import os

# Names the folder that the running capture writes to. Unset: the plugin is inert.
CAPTURE_DIR_VARIABLE = "PP_HARNESS_CAPTURE_DIR"
# Set to leave the plugin out of a capture: the control run that shows that tracing changes nothing.
TRACE_VARIABLE = "PP_HARNESS_TRACE"
# Names the device of each rank, as an index into CUDA_VISIBLE_DEVICES: `0,0` puts two on the first.
SHARE_VARIABLE = "PP_HARNESS_RANK_DEVICES"
# Set where weights are drawn in the engine: the cell's model is a config without a checkpoint.
WEIGHTS_VARIABLE = "PP_HARNESS_WEIGHTS"
# The load format of such a model, as vLLM knows it.
LOAD_FORMAT = "pp_harness_random"
# Before the name of a change of the self-test.
SELFTEST = "selftest:"

_installed = False


def register() -> None:
    """Install the hooks, once per process and only while a capture runs."""
    global _installed  # noqa: PLW0603 - vLLM may load a plugin several times in one process
    folder = os.environ.get(CAPTURE_DIR_VARIABLE)
    if _installed or not folder:
        return
    _installed = True
    from pathlib import Path

    from . import share, shm
    from .tracer import Tracer
    from .workers import install

    shm.install()
    if os.environ.get(WEIGHTS_VARIABLE):
        from . import random_load

        random_load.install()
    # Before the tracer, whose wrappers see what vLLM sends and gets.
    if ranks := os.environ.get(SHARE_VARIABLE):
        share.install(tuple(int(device) for device in ranks.split(",")))
    install(Tracer(Path(folder), tracing=os.environ.get(TRACE_VARIABLE, "1") != "0"))
