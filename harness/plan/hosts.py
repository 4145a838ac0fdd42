"""The kinds of hosts by device: how one is told from another, and how fast cells are on it.

A new kind is a value of `engine.settings.Device` and an entry of `KINDS` here and in
`engine.devices`; `capture.devices` finds and leases it.
"""

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from ..engine.settings import Device


@dataclass(frozen=True)
class Rates:
    """The model of a cell's time: seconds to start and stop, per rank, per forward pass and stage.

    Weights load and pass at so many bytes a second; `imports` are the seconds of a fork server.
    """

    start: float
    rank: float
    step: float
    load: float
    bandwidth: float
    imports: float


@dataclass(frozen=True)
class HostKind:
    """What the controller knows of a kind: the host's identity, and the rates of cells on it."""

    identity: Callable[[], str]
    device_bytes: Callable[[], int]
    rates: Rates


def _processor() -> str:
    """Name the processor, with a digest of its instruction set: kernels are chosen by it."""
    # /proc/cpuinfo gives it as flags on x86 and ARM.
    wanted = ("model name", "flags", "CPU part", "Features")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    facts = sorted({line for line in lines if line.startswith(wanted)})
    name = next((line.partition(":")[2].strip() for line in facts if "model name" in line), "cpu")
    return f"{name} {hashlib.sha256(chr(10).join(facts).encode()).hexdigest()[:12]}"


def nvidia_smi(fields: str, *arguments: str) -> list[str]:
    """Ask nvidia-smi for `fields` of each GPU, a line each, without units.

    Raises:
        OSError: if there is no such program.
        subprocess.CalledProcessError: if it fails.
    """
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", *arguments]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()


def _gpus() -> str:
    """Name the GPUs and their driver."""
    return "; ".join(sorted(set(nvidia_smi("name,driver_version"))))


def _gpu_bytes() -> int:
    """Return the memory of the smallest GPU."""
    return min(int(line) for line in nvidia_smi("memory.total")) * 2**20


KINDS = {
    # Fitted to the instruments on two cores.
    Device.CPU: HostKind(
        _processor,
        lambda: psutil.virtual_memory().total,
        Rates(start=1.0, rank=1.9, step=0.014, load=0.5e9, bandwidth=8e9, imports=10.0),
    ),
    # A guess, good for the order; earlier records replace it as soon as there are any.
    Device.CUDA: HostKind(
        _gpus,
        _gpu_bytes,
        Rates(start=8.0, rank=4.0, step=0.010, load=1e9, bandwidth=2e12, imports=20.0),
    ),
}


@lru_cache(maxsize=2)
def host_identity(device: Device) -> str:
    """Name what of this host can change a result."""
    return KINDS[device].identity()


@lru_cache(maxsize=2)
def device_bytes(device: Device) -> int:
    """Return the memory of a device, that of the whole host for a CPU."""
    return KINDS[device].device_bytes()
