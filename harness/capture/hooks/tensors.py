"""A subclass of vLLM's IntermediateTensors that notes which keys the model's forward reads."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vllm.sequence import IntermediateTensors

_HERE = str(Path(__file__).resolve().parent)
# Called with (kind, key or attribute name, "file:line" of the reader).
Note = Callable[[str, str, str], None]


def caller() -> str:
    """Return `path:line` of the nearest frame outside the hooks and vllm/sequence.py."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith(_HERE) and not path.endswith("vllm/sequence.py"):
            _, found, tail = path.rpartition("/vllm/")
            return f"vllm/{tail}:{frame.f_lineno}" if found else f"{path}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "unknown"


class _TracedDict(dict[str, Any]):
    """The dictionary inside: every way to get at a value counts as a read of its key."""

    note: Note

    def __getitem__(self, key: str) -> Any:
        self.note("read" if key in self else "missing-key", key, caller())
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.note("read" if key in self else "missing-key", key, caller())
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self.note("read" if key in self else "missing-key", key, caller())
        return super().pop(key, *default)

    def items(self) -> Any:
        for key in self:
            self.note("read", key, caller())
        return super().items()

    def values(self) -> Any:
        for key in self:
            self.note("read", key, caller())
        return super().values()


def traced(tensors: IntermediateTensors, note: Note) -> IntermediateTensors:
    """Return an IntermediateTensors of the same content whose reads call `note`.

    It never gains a method that the original lacks: a model that calls `.get` must fail under
    the tracer as it fails without it.
    """
    content = _TracedDict(dict.items(tensors.tensors))
    content.note = note

    class Traced(IntermediateTensors):
        def __getitem__(self, key: str | slice) -> Any:
            if isinstance(key, slice):  # cutting rows off reads nothing
                cut = {name: value[key] for name, value in dict.items(self.tensors)}
                return traced(IntermediateTensors(cut), note)
            return super().__getitem__(key)

        def __getattr__(self, name: str) -> Any:
            # Only reached for what the class lacks.
            if not name.startswith("__"):
                note("missing-attribute", name, caller())
            raise AttributeError(f"'IntermediateTensors' object has no attribute '{name}'")

    Traced.__name__ = Traced.__qualname__ = IntermediateTensors.__name__
    return Traced(content, tensors.kv_connector_output)
