"""What runs inside vLLM's processes: a plugin that records and, outside a capture, does nothing.

vLLM loads `register` in every process through the entry point group `vllm.general_plugins`.
"""

import os

# Names the folder that the running capture writes to. Unset: the plugin is inert.
CAPTURE_DIR_VARIABLE = "PP_HARNESS_CAPTURE_DIR"
# Set to leave the plugin out of a capture: the control run that shows that tracing changes nothing.
TRACE_VARIABLE = "PP_HARNESS_TRACE"

_installed = False


def register() -> None:
    """Install the hooks, once per process and only while a capture runs."""
    global _installed  # noqa: PLW0603 - vLLM may load a plugin several times in one process
    folder = os.environ.get(CAPTURE_DIR_VARIABLE)
    if _installed or not folder:
        return
    _installed = True
    from pathlib import Path

    from . import shm
    from .runner_v1 import install
    from .tracer import Tracer

    shm.install()
    install(Tracer(Path(folder), tracing=os.environ.get(TRACE_VARIABLE, "1") != "0"))
