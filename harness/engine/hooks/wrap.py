"""Replacing methods of vLLM's classes. Classes, not instances: forked workers inherit that."""

import functools
from collections.abc import Callable
from typing import Any


def wrap(owner: type, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a method that `owner` itself defines by `make(method)`; else do nothing."""
    original = owner.__dict__.get(name)
    if original is not None:
        setattr(owner, name, functools.wraps(original)(make(original)))
