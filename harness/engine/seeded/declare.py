"""How a change of the self-test is declared: the record, the two decorators, and the list."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from ..hooks.site import Change, Site
from ..settings import Profile

# The last stage, after its last layer: where a final norm or a soft cap is lost.
AFTER_LAYERS = -1
# The name under which an engine runs once more without any change, after all changes.
UNCHANGED = "unchanged"


@dataclass(frozen=True)
class SeededChange:
    """One change of the self-test: a fault, or harmless.

    `stage` and `layer` are where the first difference must be found (AFTER_LAYERS: behind the last
    layer; None: no layer's output differs in a probe, or the change is harmless). `quick` ones are
    in the subset of the CI. A `fine` one is less than a rounding of bfloat16, in which it changes
    no bit.
    """

    name: str
    kind: str
    description: str
    action: Change = field(repr=False)
    model: str = "ple"
    pp: int = 2
    profile: Profile = Profile.PARITY
    stage: int | None = 1
    layer: int | None = 5
    harmless: bool = False
    quick: bool = False
    fine: bool = False


_declared: dict[str, SeededChange] = {}


def declared() -> tuple[SeededChange, ...]:
    """All changes in the order of their declaration."""
    return tuple(_declared.values())


def fault(
    kind: str, description: str, *, in_noise: bool = False, **options: Any
) -> Callable[[Change], Change]:
    """Declare the decorated action as a fault; `options` are further fields of `SeededChange`.

    The function names it: `_key_not_sent` is `key-not-sent`. With `in_noise` it runs under stress,
    among batches whose logits are noisy, as `key-not-sent-in-noise`.

    Raises:
        ValueError: if another change has that name.
    """
    if in_noise:
        options["profile"] = Profile.STRESS

    def declare(action: Change) -> Change:
        name = action.__name__.removeprefix("_").replace("_", "-")
        name += "-in-noise" if in_noise else ""
        if name in _declared or name == UNCHANGED:
            raise ValueError(f"two changes of the self-test are named {name!r}")
        _declared[name] = SeededChange(name, kind, description, action, **options)
        return action

    return declare


def harmless(description: str, **options: Any) -> Callable[[Change], Change]:
    """Declare the decorated action as a change that no check may notice."""
    return fault("harmless", description, stage=None, layer=None, harmless=True, **options)


def resolve(name: str) -> Change:
    """Find the action of a declared change, or of none for UNCHANGED.

    Raises:
        LookupError: if there is no such change.
    """
    if name != UNCHANGED and name not in _declared:
        raise LookupError(f"the self-test has no change {name!r}")

    def begin(site: Site) -> AbstractContextManager[Any]:
        if not site.memory:
            # A NaN that an earlier fault left in the cache spreads, even where it is masked.
            for cache in site.runner.kv_caches:
                cache.zero_()
            site.memory["begun"] = True
        return nullcontext() if name == UNCHANGED else _declared[name].action(site)

    return begin
