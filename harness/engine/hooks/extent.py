"""Which part of a tensor is used: a tensor subclass that watches how it is indexed."""

from typing import Any

import torch
from torch.utils._pytree import tree_map_only

# Questions about a tensor that its values do not answer.
_METADATA = {
    "__len__", "dim", "element_size", "get_device", "is_complex", "is_contiguous",
    "is_floating_point", "is_signed", "ndimension", "nelement", "numel", "size",
    "storage_offset", "stride", "type",
}  # fmt: skip


class WatchedTensor(torch.Tensor):
    """A view of a boundary tensor [rows, ...] whose `used` mask grows with what is taken from it.

    Indexing marks the region that it selects; any other operation marks everything. Results are
    plain tensors over the same storage, so that nothing that is computed changes.
    """

    used: torch.Tensor

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        watched: list[WatchedTensor] = []
        tree_map_only(cls, watched.append, (args, kwargs))
        plain = tree_map_only(cls, lambda t: t.as_subclass(torch.Tensor), (args, kwargs))
        result = model_operation(func, *plain)
        if func is torch.Tensor.__getitem__ and isinstance(args[0], cls):
            args[0].used[plain[0][1]] = True
        elif not _asks_for_metadata(func, result):
            for tensor in watched:
                tensor.used.fill_(True)
        return result


def model_operation(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do with the tensor what the model does; an exception from here is its own (failures.py)."""
    return func(*args, **kwargs)


def _asks_for_metadata(func: Any, result: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name in _METADATA or (name == "__get__" and not isinstance(result, torch.Tensor))


def watch(tensor: torch.Tensor) -> WatchedTensor:
    """Return a watched view of `tensor`."""
    view: WatchedTensor = tensor.as_subclass(WatchedTensor)
    view.used = torch.zeros(tensor.shape, dtype=torch.bool)
    return view


def plain(tensor: Any) -> Any:
    """Return the tensor behind a watched view, anything else as it is."""
    return tensor.as_subclass(torch.Tensor) if isinstance(tensor, WatchedTensor) else tensor


def used_ranges(view: WatchedTensor) -> list[list[int]]:
    """Return the elements of a row that were used, as [start, stop) ranges of the flat row."""
    row = view.used.reshape(view.used.shape[0], -1).any(dim=0).to(torch.int8)
    edges = torch.diff(row, prepend=row.new_zeros(1), append=row.new_zeros(1))
    starts, stops = (edges == 1).nonzero().flatten(), (edges == -1).nonzero().flatten()
    return [[int(a), int(b)] for a, b in zip(starts, stops, strict=True)]
