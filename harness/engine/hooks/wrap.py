"""Replacing methods of vLLM's classes, or refusing. Classes, not instances: forked ranks inherit.

A hook that found nothing to wrap would record nothing, and what is not recorded reads as equal.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Call = Callable[..., Any]


class HookError(RuntimeError):
    """A name that a hook relies on is not in this vLLM: no word about the model."""

    def __init__(self, lack: str) -> None:
        vllm = sys.modules.get("vllm")
        version = getattr(vllm, "__version__", "of unknown version")
        folder = Path(getattr(vllm, "__file__", None) or "DIR/vllm/__init__.py").parent.parent
        super().__init__(
            f"our hooks do not fit vLLM {version}: {lack}; for all that they miss run: "
            f"pp-harness pin check {folder}"
        )


@contextmanager
def names_of_vllm() -> Iterator[None]:
    """Turn a failed import of a name of vLLM into `HookError`."""
    try:
        yield
    except ImportError as error:
        raise HookError(str(error)) from error


def wrap(owner: type, name: str | tuple[str, ...], hook: Callable[..., Any]) -> None:
    """Let `hook(method, *args, **kwargs)` answer each call of a method or static method.

    It is replaced in the class that defines it: `owner` or one that it inherits from. Of several
    names, which releases call it by, each that is there is replaced.

    Raises:
        HookError: if there is none.
    """
    names = (name,) if isinstance(name, str) else name
    classes = [each for each in owner.__mro__ if each is not object]
    definers = {each: [kind for kind in classes if each in vars(kind)] for each in names}
    if not any(definers.values()):
        listed = " and no ".join(map(repr, names))
        raise HookError(f"{owner.__module__}.{owner.__qualname__} has no {listed}")
    for each, kinds in definers.items():
        if kinds:
            _wrap(kinds[0], each, hook)


def _wrap(definer: type, name: str, hook: Callable[..., Any]) -> None:
    original = vars(definer)[name]
    is_static = isinstance(original, staticmethod)
    method = original.__func__ if is_static else original

    @functools.wraps(method)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        return hook(method, *args, **kwargs)

    setattr(definer, name, staticmethod(hooked) if is_static else hooked)


def wrap_calls(module: Any, hook: Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]) -> None:
    """Let `hook(call, args, kwargs)` answer each call of this module of a model.

    Not by torch's forward hooks: vLLM calls past them the classes that it may compile.
    """
    owner = type(module)
    original = owner.__call__

    @functools.wraps(original)
    def hooked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is not module:
            return original(self, *args, **kwargs)
        return hook(functools.partial(original, self), args, kwargs)

    owner.__call__ = hooked
