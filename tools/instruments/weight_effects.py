"""The effect of each kind of weight of a random model on its logits: each must move them.

An equal result proves something only if an unequal one was possible. Measured in transformers'
forward, in float32.
"""

import inspect
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from harness.engine.random_weights import saved_tensors
from harness.errors import BadInputError

# Relative change of the logits; float32 rounding over a tiny model stays below 1e-5.
MINIMUM_EFFECT = 1e-3
# Standard deviation of logits over the vocabulary and over positions.
MINIMUM_SPREAD = 1e-2
PROBE_TOKENS = 72
_INDEX = re.compile(r"\.\d+(?=\.)")
_PER_LAYER_ARGUMENT = "per_layer_input"


@dataclass(frozen=True)
class WeightEffects:
    """The effects of a model's weights on its logits.

    Attributes:
        smallest: the kind of parameter that moves the logits least, named with `*` for layer and
            expert numbers, and their relative change (root mean square of the change over that of
            the logits).
        top_tokens: how many different tokens are the most likely one somewhere in the prompt.
    """

    smallest: tuple[str, float]
    top_tokens: int


def measure(model: Any, vocab_size: int) -> WeightEffects:
    """Disturb a parameter of each kind, and the per-layer inputs, and compare the logits.

    The parameter is taken from the middle of the model and rolled by one along its last
    dimension: a norm that follows cannot undo that, as it undoes a scaling.

    Args:
        model: a causal LM of transformers in float32.
        vocab_size: number of tokens.

    Raises:
        BadInputError: logits are not finite, constant, or do not move; the message names the
            parameter.
    """
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, vocab_size, (1, PROBE_TOKENS), generator=generator)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            computed: torch.Tensor = model(input_ids=tokens, use_cache=False).logits[0].float()
        return computed

    plain = logits()
    _check_spread(plain)
    effects = {}
    for kind, tensor in _middle_of_each_kind(model):
        with _disturbed(tensor):
            effects[kind] = _change(plain, logits())
    if getattr(model.config, "hidden_size_per_layer_input", 0) and (layers := _layers(model)):
        with ExitStack() as hooks:
            for layer in layers[len(layers) // 2 :]:
                hook = layer.register_forward_pre_hook(_blank_per_layer_input, with_kwargs=True)
                hooks.enter_context(hook)
            effects["per-layer inputs of the later half"] = _change(plain, logits())
    kind, effect = min(effects.items(), key=lambda item: item[1])
    if effect < MINIMUM_EFFECT:
        raise BadInputError(
            f"the model hardly sees {kind}: disturbing it moves the logits by "
            f"{effect:.1e} (at least {MINIMUM_EFFECT:.0e} is needed to trust an equal result); "
            "take another seed, or change the config's multipliers"
        )
    return WeightEffects((kind, effect), len(plain.argmax(-1).unique()))


def _check_spread(logits: torch.Tensor) -> None:
    if not torch.isfinite(logits).all():
        raise BadInputError(
            "the model's logits are not finite: activations explode over its depth; "
            "change the config's multipliers"
        )
    tokens, positions = float(logits.std(-1).min()), float(logits.std(0).max())
    if tokens < MINIMUM_SPREAD or positions < MINIMUM_SPREAD:
        raise BadInputError(
            f"the model's logits are nearly constant (spread {tokens:.1e} over tokens, "
            f"{positions:.1e} over positions); change the config's multipliers"
        )


def _middle_of_each_kind(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each kind of parameter by its name without numbers, and the middle tensor of it."""
    kinds: dict[str, list[torch.Tensor]] = {}
    for name, tensor in saved_tensors(model).items():
        shape = "x".join(map(str, tensor.shape))
        # Layers of two kinds may have a parameter of one name and two shapes.
        kinds.setdefault(f"{_INDEX.sub('.*', name)} [{shape}]", []).append(tensor)
    for kind, tensors in kinds.items():
        yield kind, tensors[len(tensors) // 2]


@contextmanager
def _disturbed(tensor: torch.Tensor) -> Iterator[None]:
    kept = tensor.detach().clone()
    with torch.no_grad():
        # Experts are disturbed together: the middle one may have no token of the prompt.
        tensor.copy_(kept * 1.5 if kept.numel() == 1 else kept.roll(1, -1))
        yield
        tensor.copy_(kept)


def _change(before: torch.Tensor, after: torch.Tensor) -> float:
    return float((after - before).square().mean().sqrt() / before.square().mean().sqrt())


def _layers(model: Any) -> list[Any]:
    """List the decoder layers that take per-layer inputs."""
    return [
        module
        for module in model.modules()
        if _PER_LAYER_ARGUMENT in inspect.signature(module.forward).parameters
    ]


def _blank_per_layer_input(layer: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Give zeros for the per-layer input of a layer, as a hook before its forward."""
    bound = inspect.signature(layer.forward).bind(*args, **kwargs)
    given = bound.arguments[_PER_LAYER_ARGUMENT]
    bound.arguments[_PER_LAYER_ARGUMENT] = torch.zeros_like(given)
    return bound.args, bound.kwargs
