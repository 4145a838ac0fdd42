"""The position of a rank, for others to read while it stands still: a small file, overwritten.

A step is written down when it ends (tracer.py), and the step of a deadlock never does. So each
rank keeps `position.<R>.json` true at every moment that matters: the call that it is in, how many
messages it has taken from the stage before and given to the next, and if the last one is whole.
A write is one system call of fixed length, so that a reader never sees a torn line.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import msgspec
import torch
from vllm.distributed.parallel_state import GroupCoordinator, get_pp_group

from .wrap import wrap

_BYTES = 1024
# What sends keys, sizes and dtypes before the tensors: since 0.29.0 as tensors too, by isend.
_ANNOUNCE = ("isend_object", "send_object")


class Position:
    """The position of this process's rank; does nothing before `open`."""

    def __init__(self) -> None:
        self._file = -1
        self._facts: dict[str, Any] = {
            "rank": None, "phase": None, "doing": None, "passes": 0,
            "received": 0, "sent": 0, "keys": [], "unsent": [],
        }  # fmt: skip
        # The storages that were handed to the transport in the send that runs now.
        self._started: list[int] | None = None

    @property
    def is_open(self) -> bool:
        """Whether this rank writes its position."""
        return self._file >= 0

    def open(self, folder: Path, rank: int) -> None:
        """Begin to write the position of `rank`."""
        path = folder / f"position.{rank}.json"
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        self._set(rank=rank)

    def stage(self, stage: int, tp_rank: int) -> None:
        """Write which stage this rank turned out to be."""
        self._set(stage=stage, tp_rank=tp_rank)

    @contextmanager
    def phase(self, name: str, *, passes: int) -> Iterator[None]:
        """Write that the rank is in a call of its worker, which makes `passes` forward passes."""
        self._set(phase=name)
        try:
            yield
        finally:
            self._set(phase=None, passes=self._facts["passes"] + passes)

    def send(self, method: Any, group: Any, /, tensor_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Send by `method`, which returns a handle for each tensor or nothing once all are sent."""
        if group is not get_pp_group():
            return method(group, tensor_dict, *args, **kwargs)
        self._set(doing="send", keys=list(tensor_dict))
        self._started = []
        try:
            handles = method(group, tensor_dict, *args, **kwargs)
        finally:
            started, self._started = self._started, None
        full = {k: v for k, v in tensor_dict.items() if isinstance(v, torch.Tensor) and v.numel()}
        unsent = []
        if started and len(started) < len(full):
            unsent = [k for k, v in full.items() if _storage(v) not in started]
        self._set(doing=None, sent=self._facts["sent"] + 1, unsent=unsent)
        return handles

    def announce(self, method: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Take no note of what `method` hands to the transport: it is no tensor of the message."""
        started, self._started = self._started, None
        try:
            return method(*args, **kwargs)
        finally:
            self._started = started

    def isend(self, method: Any, /, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Take note that a tensor is handed to the transport."""
        if self._started is not None:
            self._started.append(_storage(tensor))
        return method(tensor, *args, **kwargs)

    def receive(self, method: Any, group: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Write that the rank waits for the stage before it, and that a message has arrived."""
        if group is not get_pp_group():
            return method(group, *args, **kwargs)
        self._set(doing="receive")
        tensors, handles, after = method(group, *args, **kwargs)
        if not handles:  # else the wait for them says so
            self._received()
        return tensors, handles, after

    def wait(self, method: Any, tensors: Any) -> None:
        """Write that a message has arrived, if it was waited for here."""
        waits = bool(tensors._comm_handles) and not tensors._comm_waited
        method(tensors)
        if waits:
            self._received()

    def _received(self) -> None:
        self._set(doing=None, received=self._facts["received"] + 1)

    def _set(self, **facts: Any) -> None:
        self._facts.update(facts)
        if self._file >= 0:
            content = msgspec.json.encode(self._facts)
            if len(content) < _BYTES:
                os.pwrite(self._file, content.ljust(_BYTES - 1) + b"\n", 0)


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())


def install(position: Position) -> None:
    """Patch vLLM's group coordinator, and what it receives into, so that they tell `position`."""
    from vllm.v1.worker.gpu_worker import AsyncIntermediateTensors

    wrap(GroupCoordinator, "isend_tensor_dict", position.send)
    wrap(GroupCoordinator, _ANNOUNCE, position.announce)
    wrap(GroupCoordinator, "irecv_tensor_dict", position.receive)
    wrap(AsyncIntermediateTensors, "wait_for_comm", position.wait)
    isend = torch.distributed.isend
    torch.distributed.isend = wraps(isend)(partial(position.isend, isend))
