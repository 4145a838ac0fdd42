"""Changes: what is altered on purpose in the steps of marked requests, and undone after each step.

A request whose mark carries `"change": NAME` runs under that change on every rank, in exactly the
steps in which it is scheduled. Two families use it: known perturbations (`sensitivity:...`,
perturb.py) and the changes of the self-test (`selftest:...`, harness/engine/seeded/faults.py).
Nothing here runs while no request asks for a change.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

from ..names import SELFTEST, SENSITIVITY
from .step import RowSpan
from .tracer import Tracer


@dataclass(frozen=True)
class Site:
    """One rank in one step, as a change sees it.

    `layers` maps absolute indices to this rank's decoder layers, `spans` are the rows of the step
    in batch order, `memory` is what the change kept from its earlier steps on this rank.
    """

    runner: Any
    model: Any
    group: Any
    layers: dict[int, Any]
    spans: tuple[RowSpan, ...]
    memory: dict[str, Any]
    tracer: Tracer

    @property
    def stage(self) -> int:
        """Return this rank's pipeline stage."""
        return int(self.group.rank_in_group)

    @property
    def stages(self) -> int:
        """Return how many stages there are."""
        return int(self.group.world_size)


# Alters what it likes on entry; on exit everything is as it was, weights bit by bit.
Change = Callable[[Site], AbstractContextManager[Any]]


def find(name: str) -> Change:
    """Return the change of a name.

    Raises:
        LookupError: if no family knows it.
    """
    if name.startswith(SENSITIVITY):
        from .perturb import perturbation

        return perturbation(name.removeprefix(SENSITIVITY))
    if name.startswith(SELFTEST):
        from ..seeded.faults import change

        return change(name.removeprefix(SELFTEST))
    raise LookupError(f"no change is named {name!r}")


_active = ExitStack()
_memories: dict[str, dict[str, Any]] = {}


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
        tracer=tracer,
    )
    _active.enter_context(find(name)(site))


def leave() -> None:
    """Undo the change of the step that ends, if there was one."""
    _active.close()
