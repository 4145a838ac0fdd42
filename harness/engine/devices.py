"""The kinds of devices that ranks run on, as far as the processes of an engine differ by them.

A new kind is a value of `settings.Device` and an entry of `KINDS` here, and an entry of
`plan.hosts.KINDS` for how it is found and what it costs.
"""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Mapping

from .manifest import Request
from .names import SHARE_VARIABLE
from .settings import Device, Executor, Kernels


class Kind(ABC):
    """What differs between kinds of devices: environment, imports, how workers start.

    A fork server needs `environment`, in eager mode `eager_environment` too, and imports
    `first_imports` before all others; `default_dtype` is that of weights and activations where the
    user names none; `block_tokens` is the smallest block of a KV cache that vLLM uses there. For
    kernels whose rows do not depend on the batch, `invariant` is the environment, read as libraries
    load, and `invariant_settings` what vLLM is told beside it.
    """

    environment: Mapping[str, str]
    eager_environment: Mapping[str, str] = {}
    first_imports: tuple[str, ...] = ()
    default_dtype: str
    block_tokens: int
    invariant: Mapping[str, str]
    invariant_settings: Mapping[str, str] = {}

    @abstractmethod
    def kernels(self) -> Kernels:
        """Read back in an engine's process which kernels were switched on."""

    @abstractmethod
    def cell_environment(self, request: Request) -> dict[str, str]:
        """Build what a cell's environment needs: its devices, for each rank."""

    def must_spawn(self) -> bool:
        """Whether a fork of this process could not use the device any more."""
        return False


class Cpu(Kind):
    """Cores: the stages of a cell share those that it leases."""

    environment: Mapping[str, str] = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    # Else helper functions compile in eager mode, at seconds each.
    eager_environment: Mapping[str, str] = {"TORCHDYNAMO_DISABLE": "1"}
    # First: since 0.26.0 it replaces functions that other modules import by name.
    first_imports = ("vllm.v1.worker.cpu_worker",)
    default_dtype = "float32"
    block_tokens = 128
    # torch computes what does not fill its last two vectors by scalar code with other last bits:
    # the last row of an odd number of rows of a narrow tensor (gelu of a per-layer input).
    # Without vectors all rows are computed alike. MKL multiplies few rows, as those of one expert,
    # by another kernel than many, unless it is strict; vLLM needs AVX2 anyway.
    invariant: Mapping[str, str] = {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "AVX2,STRICT",
    }

    def kernels(self) -> Kernels:
        """Ask torch for the instructions that it uses."""
        import torch

        vectors = torch.backends.cpu.get_cpu_capability() != "DEFAULT"
        return Kernels.DEFAULT if vectors else Kernels.INVARIANT

    def cell_environment(self, request: Request) -> dict[str, str]:
        """Name a core for each rank."""
        cores, ranks = request.devices, request.pp * request.tp
        bind = [str(cores[rank % len(cores)]) for rank in range(ranks)]
        return {"VLLM_CPU_OMP_THREADS_BIND": "|".join(bind)}


class Cuda(Kind):
    """GPUs: one for each rank, or shared by several."""

    # torch asks the driver's management library for GPUs, not the driver: a process that has
    # started the driver cannot be forked into one that uses it.
    environment: Mapping[str, str] = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    default_dtype = "bfloat16"
    block_tokens = 16
    invariant: Mapping[str, str] = {"VLLM_BATCH_INVARIANT": "1"}
    # With FlashAttention 3 rows of PP=1 move all the same (vLLM 0.20.2, two H100s).
    invariant_settings: Mapping[str, str] = {"attention_backend": "TRITON_ATTN"}

    def kernels(self) -> Kernels:
        """Ask vLLM for its setting."""
        from vllm import envs

        return Kernels.INVARIANT if envs.VLLM_BATCH_INVARIANT else Kernels.DEFAULT

    def cell_environment(self, request: Request) -> dict[str, str]:
        """Show the leased GPUs; say which rank is on which where ranks share them."""
        if request.executor is Executor.RAY:  # Ray gives its actors the devices they may see
            return {}
        gpus = [device // request.ranks_per_device for device in request.devices]
        visible = sorted(set(gpus))
        env = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, visible))}
        if request.ranks_per_device > 1 and len(gpus) > 1:
            env[SHARE_VARIABLE] = ",".join(str(visible.index(gpu)) for gpu in gpus)
            env["VLLM_DISABLE_PYNCCL"] = "1"
        return env

    def must_spawn(self) -> bool:
        """Whether this process has started the CUDA driver; no fork of it could use a GPU then."""
        try:
            driver = ctypes.CDLL("libcuda.so.1")
        except OSError:
            return False
        # Any call before cuInit answers CUDA_ERROR_NOT_INITIALIZED (3).
        return bool(driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) == 0)


KINDS: dict[Device, Kind] = {Device.CPU: Cpu(), Device.CUDA: Cuda()}
