"""Random weights that see everything: seeded by name, spread so that each one moves the logits.

Dummy weights as engines make them give logits of zero and tell nothing. These follow one rule for
each shape of parameter, and take from the model's own initialisation only where its centre is.
Only builders of models and the engine import this module, which needs torch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch

# Standard deviation around a vector's own start value: norms, biases, gates of a whole layer.
VECTOR_SPREAD = 0.2
# A single number (a layer's scalar) is scaled into this range, away from 0 and from 1.
SCALAR_RANGE = (0.7, 0.9)
EMBEDDING_STD = 0.3
# Above 1, since gating and averaging over attention shrink what a layer adds.
MATRIX_GAIN = 1.5


def generator_for(name: str, seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return the source of a parameter's numbers: the same wherever name and seed are.

    Each kind of device has numbers of its own.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


def fill(model: Any, seed: int) -> None:
    """Replace every parameter and saved buffer of a float32 model, rounded to bfloat16 values."""
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)
    }
    with torch.no_grad():
        for name, tensor in saved_tensors(model).items():
            drawn = draw(name, tensor, seed, is_embedding=id(tensor) in embeddings)
            tensor.copy_(drawn.to(torch.bfloat16).to(tensor.dtype))


def draw(name: str, start: torch.Tensor, seed: int, *, is_embedding: bool) -> torch.Tensor:
    """Return new values in the shape of ``start``.

    Matrices have a standard deviation of about one over the root of their inputs, so that
    activations keep their size over the depth. Vectors spread around where they start (ones for
    most norms, zeros for biases and for norms that add one), so that none is 0 or 1 throughout.
    """
    device = start.device
    generator = generator_for(name, seed, device)
    if start.numel() == 1:
        low, high = SCALAR_RANGE
        part = low + (high - low) * torch.rand(start.shape, generator=generator, device=device)
        return part * torch.where(start == 0, torch.ones_like(start), start)
    noise = torch.randn(start.shape, generator=generator, device=device)
    if start.dim() == 1 and not is_embedding:
        return start + VECTOR_SPREAD * noise * start.abs().clamp(min=1.0)
    return matrix_std(name, start.shape, is_embedding=is_embedding) * noise


def matrix_std(name: str, shape: Sequence[int], *, is_embedding: bool) -> float:
    """Return the standard deviation of a matrix's numbers, by its inputs."""
    if is_embedding:
        return EMBEDDING_STD
    # A convolution mixes its window as well; stacked experts are one matrix each.
    inputs = math.prod(shape[1:]) if "conv" in name else shape[-1]
    return MATRIX_GAIN / math.sqrt(inputs)


def refill(name: str, tensor: torch.Tensor, seed: int, *, is_embedding: bool) -> None:
    """Replace a tensor's values where it lies; matrices without a second copy of them.

    The largest table of a real model is 6 GB, and a float32 copy of it would not fit beside it.
    Biases, and other vectors that are no weight, are drawn around 0: vLLM leaves them as memory
    was.
    """
    with torch.no_grad():
        if name.endswith(".A"):
            # The decay of a state-space layer, which vLLM keeps as -exp(A_log): a positive one lets
            # the state grow beyond all numbers in a prompt.
            generator = generator_for(name, seed, tensor.device)
            tensor.normal_(-1.0, VECTOR_SPREAD, generator=generator).clamp_(max=-VECTOR_SPREAD)
        elif tensor.dim() < 2 or tensor.numel() == 1:
            start = tensor.float()
            if tensor.numel() > 1 and not name.endswith("weight"):
                start = torch.zeros_like(start)
            tensor.copy_(draw(name, start, seed, is_embedding=is_embedding))
        else:
            std = matrix_std(name, tensor.shape, is_embedding=is_embedding)
            tensor.normal_(0.0, std, generator=generator_for(name, seed, tensor.device))


def saved_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Return the model's own parameters and saved buffers by name; of tied ones, the first name.

    What lies on the meta device has no values: parts that vLLM does not build for text alone.
    """
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() and not tensor.is_meta:
            found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())
