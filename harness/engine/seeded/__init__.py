"""Faults and harmless changes that the self-test seeds into running engines.

Each is one declaration (declare.py) in one of the modules imported here. They run inside the
engine's processes, and the controller reads the list of them: none imports torch or vLLM.
"""

from . import boundary, computation, harmless  # noqa: F401 - each declares its own
from .declare import AFTER_LAYERS, UNCHANGED, SeededChange, declared, resolve

__all__ = ["AFTER_LAYERS", "UNCHANGED", "SeededChange", "declared", "resolve"]
