"""The identity of this host, as far as it can change a result."""

import hashlib
import subprocess
from functools import lru_cache
from pathlib import Path

from ..engine.settings import Device


@lru_cache(maxsize=2)
def host_identity(device: Device) -> str:
    """Name the processor with its instruction set, or the GPUs and their driver."""
    if device is Device.CUDA:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        return "; ".join(sorted(set(listed.splitlines())))
    # Kernels are chosen by instruction set, which /proc/cpuinfo gives as flags on x86 and ARM.
    wanted = ("model name", "flags", "CPU part", "Features")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    facts = sorted({line for line in lines if line.startswith(wanted)})
    name = next((line.partition(":")[2].strip() for line in facts if "model name" in line), "cpu")
    return f"{name} {hashlib.sha256(chr(10).join(facts).encode()).hexdigest()[:12]}"
