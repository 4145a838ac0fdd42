"""Changes and the place where they act: one rank in one step.

Imports neither torch nor vLLM, because the controller reads the list of seeded changes too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .step import RowSpan

# The V1 runner's copy into its receive buffer, by its names: since 0.26.0 it also gathers what
# sequence parallelism scattered.
COPIES = ("sync_and_slice_intermediate_tensors", "sync_and_gather_intermediate_tensors")


@dataclass(frozen=True)
class Site:
    """One rank in one step, as a change sees it.

    `layers` maps absolute indices to this rank's decoder layers, `spans` are the rows of the step
    in batch order, `memory` is what the change kept from its earlier steps on this rank, `write`
    appends an event to what this rank records.
    """

    runner: Any
    model: Any
    group: Any
    layers: dict[int, Any]
    spans: tuple[RowSpan, ...]
    memory: dict[str, Any]
    write: Callable[..., None]

    @property
    def stage(self) -> int:
        """Pipeline stage of this rank."""
        return int(self.group.rank_in_group)

    @property
    def stages(self) -> int:
        """Number of pipeline stages."""
        return int(self.group.world_size)


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give `owner` another value of an attribute."""
    had = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def altered_send(
    site: Site, alter: Callable[[dict[str, Any]], dict[str, Any]]
) -> AbstractContextManager[None]:
    """Let `alter` say what becomes of the tensors that a stage sends."""
    send = site.group.isend_tensor_dict

    def isend_tensor_dict(tensors: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return send(alter(dict(tensors)), *args, **kwargs)

    return attribute(site.group, "isend_tensor_dict", isend_tensor_dict)


# Alters something on entry; on exit everything is as it was, weights bit by bit.
Change = Callable[[Site], AbstractContextManager[Any]]
