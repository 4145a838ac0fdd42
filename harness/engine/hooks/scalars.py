"""Numbers that a model multiplies activations with, found where a forward reads them.

A scale that a stage applies twice shows only if its square is another number: 2.0 does, 1.0 does
not. So the known perturbation of a scalar is its square.
"""

import inspect
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

# `self.residual_multiplier`, `self.config.embedding_multiplier`, and the scale of the logits.
_READ = re.compile(r"\bself\.((?:config\.)?\w*multiplier|scale)\b")
_LOGITS = "logits_processor"


@dataclass(frozen=True)
class Scalar:
    """A scalar where the model keeps it: the module that reads it, the owner and the name there."""

    module: torch.nn.Module
    owner: Any
    name: str

    @property
    def value(self) -> float:
        """The number itself."""
        return float(getattr(self.owner, self.name))

    @property
    def is_neutral(self) -> bool:
        """Whether it is the same however often it is applied."""
        return self.value in (0.0, 1.0)


def scalar_kinds(model: torch.nn.Module) -> dict[str, Scalar]:
    """Find the first scalar of each kind, by its name without layer numbers."""
    kinds: dict[str, Scalar] = {}
    for full, module in model.named_modules():
        for path in scalars_read_by(type(module)):  # type: ignore[arg-type] # types do hash
            *of_config, name = path.split(".")
            owner = getattr(module, of_config[0], None) if of_config else module
            is_other_scale = name == "scale" and not full.endswith(_LOGITS)
            if isinstance(getattr(owner, name, None), float) and not is_other_scale:
                place = re.sub(r"\.\d+(?=\.|$)", ".*", full)
                kinds.setdefault(f"{place}.{path} (scalar)", Scalar(module, owner, name))
    return kinds


@cache
def scalars_read_by(kind: type) -> tuple[str, ...]:
    """The scalars that the forward of a class names."""
    try:
        source = inspect.getsource(kind.forward)  # type: ignore[attr-defined]
    except (OSError, TypeError, AttributeError):
        return ()
    return tuple(dict.fromkeys(_READ.findall(source)))
