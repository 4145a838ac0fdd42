"""What the harness changes in vLLM so that a release runs at all on a device: one list.

An engine with a workaround is not quite the release, so none acts unseen: each rank notes those
that acted in it, control runs too, and `Effective.workarounds` has them. Each acts only where it
finds what it is for, whatever the version: a checkout has the version of the release that lends it
its compiled files. Imports neither torch nor vLLM, because the controller reads the list too.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..settings import Device
from . import amx, conv_strides, kernel_scan, moe_activation, receive_buffer, shm


@dataclass(frozen=True, kw_only=True)
class Workaround:
    """A change of ours to vLLM on `devices`, in the releases from `since` on and before `until`.

    `apply` patches vLLM's classes and is handed a function to call whenever the change acts.
    `upstream` is the address of the change that made it necessary, or says that there is none.
    """

    name: str
    reason: str
    devices: tuple[Device, ...]
    since: tuple[int, ...]
    until: tuple[int, ...] = (sys.maxsize,)
    remove_when: str
    upstream: str
    apply: Callable[[Callable[[], None]], None]

    def is_for(self, release: str, device: Device) -> bool:
        """Whether a release (`0.33.0`) needs it on a device."""
        numbers = tuple(int(part) for part in release.split(".")[:3] if part.isdecimal())
        return device in self.devices and self.since <= numbers < self.until


WORKAROUNDS = (
    Workaround(
        name="cpu-receive-buffer",
        reason=(
            "the V1 runner makes the buffer that a later stage receives into in its warm-up, which "
            "the CPU worker skips in eager mode: an AssertionError at PP>=2 for every model"
        ),
        devices=(Device.CPU,),
        since=(0, 27, 1),
        remove_when="the runner makes intermediate_tensors without a warm-up",
        upstream="https://github.com/vllm-project/vllm/pull/50547",
        apply=receive_buffer.install,
    ),
    Workaround(
        name="cpu-shared-memory",
        reason=(
            "the shared memory of CPU ranks is named by a port and never removed: what an ended "
            "engine left stops a later one that gets its port"
        ),
        devices=(Device.CPU,),
        since=(0,),
        remove_when="vLLM removes the names of its segments",
        upstream="not reported",
        apply=shm.install,
    ),
    Workaround(
        name="cpu-kernel-scan",
        reason=(
            "the scan for Triton's kernels takes for a dictionary what llvmlite answers: an "
            "AttributeError at the start of every model that imports numba, most multimodal ones"
        ),
        devices=(Device.CPU,),
        since=(0, 32, 0),
        remove_when="the scan reads no `vars()` of an object that has none",
        upstream="not reported",
        apply=kernel_scan.install,
    ),
    Workaround(
        name="cpu-moe-activation",
        reason=(
            "each call of gated SiLU in a mixture of experts makes an object that wants a "
            "configuration: an AssertionError at PP=1 too, where the experts are computed in torch"
        ),
        devices=(Device.CPU,),
        since=(0,),
        until=(0, 26, 0),
        remove_when="no release before 0.26.0 is a pin",
        upstream="not reported; 0.26.0 has the function itself in the table",
        apply=moe_activation.install,
    ),
    Workaround(
        name="cpu-amx",
        reason=(
            "attention in bfloat16 uses AMX without asking Linux, and no warm-up asks in eager "
            "mode: an illegal instruction at PP=1 too if the first request has one token"
        ),
        devices=(Device.CPU,),
        since=(0, 27, 1),
        remove_when="vLLM's attention asks itself",
        upstream="not reported",
        apply=amx.install,
    ),
    Workaround(
        name="cpu-conv-strides",
        reason=(
            "the convolution of linear attention reads a distance between tokens where there is "
            "one: a RuntimeError at PP=1 too for a prompt of one token"
        ),
        devices=(Device.CPU,),
        since=(0, 33, 0),
        remove_when="the kernel takes one token whatever its stride",
        upstream="not reported",
        apply=conv_strides.install,
    ),
)

_acted: set[str] = set()


def install() -> None:
    """Apply the workarounds that are for the device of this process's ranks."""
    from vllm.platforms import current_platform

    device = Device.CPU if current_platform.is_cpu() else Device.CUDA
    for workaround in WORKAROUNDS:
        if device in workaround.devices:
            workaround.apply(partial(_acted.add, workaround.name))


def acted(_worker: Any) -> list[str]:
    """Name the workarounds that have acted in this rank; a method of vLLM's workers."""
    return sorted(_acted)


def needed(release: str, device: Device) -> list[str]:
    """Name the workarounds that a release needs on a device."""
    return [each.name for each in WORKAROUNDS if each.is_for(release, device)]
