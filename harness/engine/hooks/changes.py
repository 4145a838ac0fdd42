"""Changes: alterations made on purpose in the steps of marked requests, and undone after each step.

A request whose mark carries `"change": NAME` runs under that change on every rank, in exactly the
steps in which it is scheduled. Each family of changes has a prefix and registers how its names are
resolved (plugin.py). Nothing here runs while no request asks for a change.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from .site import Change, Site
from .step import RowSpan
from .tracer import Tracer

# Finds a change by its name without the prefix; raises LookupError if the family has none.
Resolver = Callable[[str], Change]

_families: dict[str, Resolver] = {}
_active = ExitStack()
# By the name of a change: what it keeps between its steps on this rank.
_memories: dict[str, dict[str, Any]] = {}


def register_family(prefix: str, resolver: Resolver) -> None:
    """Let `resolver` find the changes whose names begin with `prefix`."""
    _families[prefix] = resolver


def find_change(name: str) -> Change:
    """Find a change by its name.

    Raises:
        LookupError: if no family knows it.
    """
    for prefix, resolver in _families.items():
        if name.startswith(prefix):
            return resolver(name.removeprefix(prefix))
    raise LookupError(f"no change is named {name!r}; families are {', '.join(_families)}")


def enter(tracer: Tracer, runner: Any, spans: tuple[RowSpan, ...], layers: dict[int, Any]) -> None:
    """Enter the change that all requests of a step ask for; `layers` are this rank's."""
    from vllm.distributed.parallel_state import get_pp_group

    name = spans[0].change
    if any(span.change != name for span in spans):
        raise ValueError(f"one step mixes changes: {sorted({span.change for span in spans})}")
    site = Site(
        runner=runner,
        model=runner.get_model(),
        group=get_pp_group(),
        layers=layers,
        spans=spans,
        memory=_memories.setdefault(name, {}),
        write=tracer.write,
    )
    _active.enter_context(find_change(name)(site))


def leave() -> None:
    """Undo the change of the step that ends, if there was one."""
    _active.close()
