"""Fingerprints of tensors that cost one reduction and stay on the tensor's own device."""

from functools import lru_cache

import torch

_INT_VIEW = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@lru_cache(maxsize=64)
def _weights(width: int, device: str) -> torch.Tensor:
    """Return `width` fixed odd 64-bit multipliers; odd, so that none can hide a changed bit."""
    generator = torch.Generator().manual_seed(0x50502D68)
    draw = torch.randint(-(2**62), 2**62, (width,), generator=generator, dtype=torch.int64)
    return (draw * 2 + 1).to(device)


def row_digests(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """Return one 64-bit digest per row, int64 [rows], of the exact bits of `tensor[:rows]`.

    The digest is the sum of the row's integers times fixed odd weights, modulo 2**64. Integer
    addition does not depend on the order of summation, so that the same bits give the same digest
    on any device and at any number of threads.
    """
    flat = tensor[:rows].reshape(rows, -1).contiguous()
    integers = flat.view(_INT_VIEW[flat.element_size()]).to(torch.int64)
    return (integers * _weights(integers.shape[1], str(integers.device))).sum(dim=1)


def row_norms(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the Euclidean norm of each row, float32 [rows]: how large, not only which bits."""
    return torch.linalg.vector_norm(tensor[:rows].reshape(rows, -1).float(), dim=1)


# Sums by random signs that a row leaves: enough to tell a bug from rounding, small to keep.
SKETCH = 4


@lru_cache(maxsize=64)
def _signs(width: int, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0x50502D69)
    draw = torch.randint(0, 2, (width, SKETCH), generator=generator, dtype=torch.int64)
    return (draw * 2 - 1).float().T.contiguous().to(device)


def row_sketches(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """Return sums of each row by fixed random signs, float32 [rows, SKETCH].

    For two rows a and b the mean of the squared differences of their sums is an unbiased estimate
    of |a - b|**2 (Alon, Matias, Szegedy 1996), so that rows that no longer have the same bits can
    be told apart by how far they are from each other, without keeping them.
    """
    flat = tensor[:rows].reshape(rows, 1, -1).float()
    # No matrix product: the first of a dtype costs a GPU a tenth of a second (cuBLAS loads).
    return (flat * _signs(flat.shape[2], str(flat.device))).sum(dim=2)
