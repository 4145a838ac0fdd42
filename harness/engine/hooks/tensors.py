"""A subclass of vLLM's IntermediateTensors that notes which keys the model's forward reads."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vllm.sequence import IntermediateTensors

# As frames name it: where the package is a link, that is not where the link leads to.
_HERE = str(Path(__file__).parent)
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

    def _noted(self, key: str, missing: str = "missing-key") -> None:
        self.note("read" if key in self else missing, key, caller())

    def __iter__(self) -> Iterator[str]:
        # Not for what it does: a dict with an __iter__ of its own is no longer copied behind our
        # back, so that dict(d), {**d}, f(**d) and update(d) go through __getitem__.
        return super().__iter__()

    def __getitem__(self, key: str) -> Any:
        self._noted(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._noted(key, missing="absent-key")
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self._noted(key, missing="absent-key" if default else "missing-key")
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key in self:
            self._noted(key)
        return super().setdefault(key, default)

    def items(self) -> Any:
        for key in self:
            self._noted(key)
        return super().items()

    def values(self) -> Any:
        for key in self:
            self._noted(key)
        return super().values()

    def copy(self) -> dict[str, Any]:
        return dict(self)

    def __or__(self, other: Any) -> Any:
        return dict(self) | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self)


def traced(
    tensors: IntermediateTensors, note: Note, content: dict[str, Any] | None = None
) -> IntermediateTensors:
    """Return an IntermediateTensors like `tensors`, holding `content`, whose reads call `note`.

    `content` is its own where none is given. It never gains a method that the original lacks: a
    model that calls `.get` must fail under the tracer as it fails without it.
    """
    noted = _TracedDict(dict.items(tensors.tensors if content is None else content))
    noted.note = note

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
    # Not through the constructor: releases differ in what else it takes.
    copy = Traced.__new__(Traced)
    copy.__dict__.update(vars(tensors), tensors=noted)
    return copy
