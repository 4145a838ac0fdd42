"""What runs inside vLLM's processes: a plugin that records and, outside a capture, does nothing.

vLLM loads `register` in every process through the entry point group `vllm.general_plugins`, which
the variant tree's own metadata names. An environment that holds vLLM need not hold the harness, so
nothing here may import what it lacks: the standard library, torch and vLLM alone.
"""

import os

from .names import (
    CAPTURE_DIR_VARIABLE,
    SELFTEST,
    SENSITIVITY,
    SHARE_VARIABLE,
    TRACE_VARIABLE,
    WEIGHTS_VARIABLE,
)

_installed = False


def register() -> None:
    """Install the hooks, once per process and only while a capture runs."""
    global _installed  # noqa: PLW0603 - vLLM may load a plugin several times in one process
    folder = os.environ.get(CAPTURE_DIR_VARIABLE)
    if _installed or not folder:
        return
    _installed = True
    from .hooks.wrap import names_of_vllm

    with names_of_vllm():
        _install(folder)


def _install(folder: str) -> None:
    from pathlib import Path

    from . import seeded
    from .hooks import changes, share, workarounds
    from .hooks.perturb import perturbation
    from .hooks.tracer import Tracer
    from .hooks.workers import install

    changes.register_family(SENSITIVITY, perturbation)
    changes.register_family(SELFTEST, seeded.resolve)
    workarounds.install()
    if os.environ.get(WEIGHTS_VARIABLE):
        from .hooks import random_load

        random_load.install()
    # Before the tracer, whose wrappers see what vLLM sends and gets.
    if ranks := os.environ.get(SHARE_VARIABLE):
        share.install(tuple(int(device) for device in ranks.split(",")))
    install(Tracer(Path(folder), tracing=os.environ.get(TRACE_VARIABLE, "1") != "0"))
