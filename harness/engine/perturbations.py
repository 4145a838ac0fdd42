"""Names of the known perturbations: `none`, `weight:KIND` and `key:BOUNDARY:KEY`.

The engine runs each once (run_probes.py), its ranks apply them (hooks/perturb.py), and the
controller asks that each has moved the logits (capture/record.py). Imports nothing.
"""

from collections.abc import Iterable

# The run that the others are compared with.
UNPERTURBED = "none"
WEIGHT, KEY = "weight", "key"


def weight_name(kind: str) -> str:
    """Name the perturbation of one kind of weight."""
    return f"{WEIGHT}:{kind}"


def key_name(boundary: int, key: str) -> str:
    """Name the perturbation of a key at the boundary behind stage `boundary`."""
    return f"{KEY}:{boundary}:{key}"


def key_names(declared: Iterable[Iterable[str]]) -> list[str]:
    """Name the perturbations of the keys that each stage after the first declares."""
    return [key_name(boundary, key) for boundary, keys in enumerate(declared) for key in keys]
