"""What the harness changes in vLLM so that a release runs at all on a device: one list.

An engine with a workaround is not quite the release, so none acts unseen: each rank notes those
that acted in it, control runs too, and `Effective.workarounds` has them. Each acts only where it
finds what it is for, whatever the version: a checkout has the version of the release that lends it
its compiled files. Imports neither torch nor vLLM, because the controller reads the list too.
"""

import builtins
import ctypes
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..settings import Device
from .wrap import wrap

# To be called whenever a workaround acts.
Acts = Callable[[], None]

SHM = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is, not a place for files of ours
# arch_prctl(ARCH_GET_XCOMP_PERM) of x86-64, and the bit of the tiles' data in its answer.
_ARCH_PRCTL, _GET_PERMISSION, _TILES = 158, 0x1022, 1 << 18
# Modules of vLLM that are there once a model which needs them is.
_EXPERTS = "vllm.model_executor.layers.fused_moe.cpu_fused_moe"
_LINEAR_ATTENTION = "vllm.model_executor.layers.mamba.ops.cpu.gdn_attention"
_CONVOLUTION = "_causal_conv1d_fwd_cpu"


def _after_cpu_worker(name: str, then: Callable[[Acts, Any], None], acts: Acts) -> None:
    """Call `then(acts, worker)` after each call of a method of vLLM's CPU worker."""
    from vllm.v1.worker.cpu_worker import CPUWorker

    def hook(method: Callable[..., Any], worker: Any, /, *args: Any, **kwargs: Any) -> Any:
        result = method(worker, *args, **kwargs)
        then(acts, worker)
        return result

    wrap(CPUWorker, name, hook)


def _make_receive_buffer(acts: Acts, worker: Any) -> None:
    """Make the buffer as the V1 runner's own warm-up would, if there is none by now.

    The CPU worker skips the warm-up in eager mode since vLLM 0.27.1 (PR #50547), and the runner
    makes its buffer there and nowhere else.
    """
    from vllm.distributed.parallel_state import get_pp_group

    runner = worker.model_runner
    if runner.intermediate_tensors is None and not get_pp_group().is_first_rank:
        runner.intermediate_tensors = runner.get_model().make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
        )
        acts()


def _without_named_segments(acts: Acts) -> None:
    """Let CPU ranks keep no name of their shared memory: vLLM names it by a port."""
    from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed

    wrap(_CPUSHMDistributed, "_init_cpu_shm", partial(init_unnamed, acts))


def init_unnamed(acts: Acts, method: Any, communicator: Any, folder: Path = SHM) -> Any:
    """Join the rank's segment, and remove its name before, if stale, and after.

    A segment that an ended engine left behind stops a later engine that happens to get its port
    ("create shm in SHMManager failed. errno: 17"), which would read as a fault of the model. The
    engine's port is its own while it lives, so what is there under its name is of an engine that
    has ended. After the method all ranks have mapped the segment; it needs no name any more and
    goes with the last process, however that ends.
    """
    segment = folder / f"{communicator.group_name}_{communicator.communicator.rank}"
    segment.unlink(missing_ok=True)
    acts()
    try:
        return method(communicator)
    finally:
        segment.unlink(missing_ok=True)


def _scan_mappings_alone(acts: Acts) -> None:
    """Give the scan by which the CPU platform replaces Triton's kernels a `vars` of mappings alone.

    It asks every object of every imported module for its `vars()`. llvmlite's library, imported
    with numba by most multimodal models, answers to any name, `__dict__` too, with an object of
    its own.
    """
    try:
        from vllm.triton_utils import dispatcher
    except ImportError:  # a release before the scan
        return

    def attributes(value: Any) -> Mapping[str, Any]:
        found: Any = builtins.vars(value)
        if isinstance(found, Mapping):
            return found
        acts()
        return {}

    dispatcher.vars = attributes


def _replace_gated_silu(acts: Acts, _worker: Any) -> None:
    """Put the function that makes no object, as later releases have it; a table unread is none.

    The table of vLLM 0.20.2 makes a new `SiluAndMul` at each call, outside a configuration: an
    AssertionError for every mixture of experts which the compiled kernel refuses, as it does for
    other types than bfloat16 on a processor with AMX.
    """
    table = sys.modules.get(_EXPERTS)
    if table is not None:
        functions, silu = table._CPU_MOE_ACT_FN, table.MoEActivation.SILU
        if functions[silu] is not table.SiluAndMul.forward_native:
            functions[silu] = table.SiluAndMul.forward_native
            acts()


def _ask_for_amx(acts: Acts, worker: Any) -> None:
    """Ask Linux for permission to use AMX before attention in bfloat16 does.

    Linux kills a process that uses tiles without having asked. oneDNN asks as it multiplies
    matrices, vLLM's attention does not: where no warm-up multiplied before, a first request of one
    token, which is multiplied without tiles, ends in an illegal instruction.
    """
    import torch

    is_bfloat16 = worker.vllm_config.model_config.dtype is torch.bfloat16
    if is_bfloat16 and torch.cpu._is_amx_tile_supported() and not may_use_tiles():
        torch.cpu._init_amx()
        acts()


def may_use_tiles() -> bool:
    """Whether Linux lets this process use the tiles of AMX."""
    granted = ctypes.c_uint64(0)
    ctypes.CDLL(None).syscall(_ARCH_PRCTL, _GET_PERMISSION, ctypes.byref(granted))
    return bool(granted.value & _TILES)


def _replace_convolution(acts: Acts, _worker: Any) -> None:
    """Put the distance between tokens right before the convolution of linear attention.

    Its kernel demands of `x` [channels, tokens] that tokens lie one row of channels apart. Of one
    token there is no such distance, and a slice of a wider projection keeps that of the
    projection, which `contiguous()` leaves as it is: the kernel refuses it. A release without the
    function needs nothing.
    """
    layers = sys.modules.get(_LINEAR_ATTENTION)
    original = getattr(layers, _CONVOLUTION, None)
    if original is not None and not isinstance(original, partial):
        setattr(layers, _CONVOLUTION, partial(_convolve, original))
        acts()


def _convolve(original: Callable[..., Any], *, x: Any, **others: Any) -> Any:
    if x.size(1) == 1:
        x = x.as_strided(x.shape, (1, x.size(0)))
    return original(x=x, **others)


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
    apply: Callable[[Acts], None]

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
        apply=partial(_after_cpu_worker, "compile_or_warm_up_model", _make_receive_buffer),
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
        apply=_without_named_segments,
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
        apply=_scan_mappings_alone,
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
        apply=partial(_after_cpu_worker, "load_model", _replace_gated_silu),
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
        apply=partial(_after_cpu_worker, "compile_or_warm_up_model", _ask_for_amx),
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
        apply=partial(_after_cpu_worker, "load_model", _replace_convolution),
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
