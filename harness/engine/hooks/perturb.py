"""Known perturbations: of one weight and scalar of each kind, and of each key at each boundary.

An equal result proves something only if an unequal one was possible. Each perturbation doubles
every other element: a norm that follows cannot undo that, as it undoes a scaling, and doubling is
exact, so that halving restores the bits without a copy of the weight.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ..names import ADAPTER, KEY, UNPERTURBED, WEIGHT
from .scalars import scalar_kinds
from .site import Change, Site, altered_send, attribute

_INDEX = re.compile(r"\.\d+(?=\.|$)")
# A single number below this only keeps a formula away from zero (xIELU's is -1e-6).
_EPSILON = 1e-4
_EXACTLY_DOUBLED = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Weight:
    """The first weight of a kind: the module that owns it, its name there, the tensor."""

    module: torch.nn.Module
    name: str
    tensor: torch.Tensor


def weight_kinds(model: torch.nn.Module) -> dict[str, Weight]:
    """The first weight of each kind: parameters and saved float buffers.

    A kind is a name without layer and expert numbers, and a shape: layers of two types may have
    weights of one name. Of tied weights the first name counts. The first layer of a kind is taken,
    because later ones may be unused (layers that share the KV cache of an earlier one).
    """
    kinds: dict[str, Weight] = {}
    seen: set[int] = set()
    parameters = {id(tensor) for tensor in model.parameters()}
    for full, tensor in model.state_dict(keep_vars=True).items():
        owner, _, name = full.rpartition(".")
        if id(tensor) in seen or not isinstance(tensor, torch.Tensor) or name.startswith("_"):
            continue  # tied, or the scales that an attention layer keeps for quantised caches
        if tensor.is_meta:
            continue  # not built: the model is served for text alone
        seen.add(id(tensor))
        if id(tensor) not in parameters and tensor.dtype not in _EXACTLY_DOUBLED:
            continue
        # A CPU build packs matrices away and leaves an empty tensor; its shape says nothing.
        shape = f" [{'x'.join(map(str, tensor.shape))}]" if tensor.numel() else ""
        kinds.setdefault(
            _INDEX.sub(".*", full) + shape, Weight(model.get_submodule(owner), name, tensor)
        )
    return kinds


def perturbation(name: str) -> Change:
    """Find the change `none`, `weight:KIND`, `adapter` (the request has one) or `key:BOUNDARY:KEY`.

    Raises:
        LookupError: if the name is of another form.
    """
    kind, _, rest = name.partition(":")
    if kind == UNPERTURBED:
        return _unperturbed
    if kind == WEIGHT:
        return lambda site: _weight_altered(site, rest)
    if kind == ADAPTER:
        return lambda _site: nullcontext()
    if kind == KEY:
        boundary, _, key = rest.partition(":")
        return lambda site: _key_altered(site, int(boundary), key)
    raise LookupError(f"no perturbation is named {name!r}")


@contextmanager
def _unperturbed(site: Site) -> Iterator[None]:
    """Write which kinds cannot matter: their module does not run, they are zero, or an epsilon.

    Modules are seen to run in eager mode only; in compiled mode all count as having run.
    """
    eager = site.runner.model_config.enforce_eager
    ran = set() if eager else {id(module) for module in site.model.modules()}
    with ExitStack() as stack:
        if eager:
            watch = torch.nn.modules.module.register_module_forward_pre_hook
            stack.enter_context(watch(lambda module, _args: ran.add(id(module))))
        yield
    excuses = {}
    for kind, weight in weight_kinds(site.model).items():
        if id(weight.module) not in ran:
            excuses[kind] = "its module does not run for text"
        elif weight.name == "azp_adj" and weight.module.scheme.input_symmetric:
            excuses[kind] = "it adjusts for a zero point, and activations have none"
        elif weight.tensor.numel() and not _widened(weight.tensor).any():
            excuses[kind] = "it is zero throughout"
        elif weight.tensor.numel() == 1 and abs(float(weight.tensor)) < _EPSILON:
            excuses[kind] = "it is an epsilon, which keeps a formula from zero"
    for kind, scalar in scalar_kinds(site.model).items():
        # vLLM calls what it may compile past the hooks of modules; its parts are seen to run.
        if not ran & {id(module) for module in scalar.module.modules()}:
            excuses[kind] = "its module does not run for text"
        elif scalar.is_neutral:
            excuses[kind] = f"it is {scalar.value}, however often it is applied"
        elif not eager:
            excuses[kind] = "compiled code has it as a constant"
    site.write("excuses", kinds=excuses)


@contextmanager
def _weight_altered(site: Site, kind: str) -> Iterator[None]:
    """Double every other element of the first weight of a kind, in place or through its input.

    A scalar is squared.
    """
    if scalar := scalar_kinds(site.model).get(kind):
        with attribute(scalar.owner, scalar.name, scalar.value * scalar.value):
            yield
        return
    weight = weight_kinds(site.model)[kind]
    tensor, module = weight.tensor, weight.module
    method: Any = getattr(module, "quant_method", None)
    # What was packed, is no float, or is one scale, which a norm behind it undoes, is reached
    # through the input that it is multiplied with.
    least = 1 if method is None else 2
    in_place = tensor.dtype in _EXACTLY_DOUBLED and tensor.numel() >= least
    through_input = method is not None and (hasattr(module, "cpu_linear") or not in_place)
    # A scale for each output channel stands in a column.
    column = tensor.dim() > 1 and tensor.shape[-1] == 1
    elements = _alternate(tensor.data.mT if column else tensor.data)
    with ExitStack() as undo:
        if in_place:
            elements.mul_(2)
            undo.callback(elements.mul_, 0.5)
        if through_input:
            original = method.apply

            def apply(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                if layer is module:
                    x = x.clone()
                    x[..., ::2] *= 2
                return original(layer, x, *args, **kwargs)

            undo.enter_context(attribute(method, "apply", apply))
        yield


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    """In a type that has every operation: on a GPU torch compares no floats of eight bits."""
    return tensor if tensor.dtype in _EXACTLY_DOUBLED else tensor.float()


def _alternate(tensor: torch.Tensor) -> torch.Tensor:
    """A view of every other element along the last dimension; of a scalar, the scalar."""
    return tensor if tensor.dim() == 0 else tensor[..., ::2]


def _key_altered(site: Site, boundary: int, key: str) -> AbstractContextManager[None]:
    """Alter a key as it leaves the stage before the boundary."""
    if site.stage != boundary:
        return nullcontext()

    def alter(tensors: dict[str, Any]) -> dict[str, Any]:
        value = tensors.get(key)
        if isinstance(value, torch.Tensor):
            tensors[key] = value.clone()
            # Adds one as well, so that a key of zeros moves.
            _alternate(tensors[key]).mul_(2).add_(1)
        return tensors

    return altered_send(site, alter)
