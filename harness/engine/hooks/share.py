"""Several ranks on one GPU: boundary tensors go through host memory, since NCCL refuses that.

For a host with fewer GPUs than stages (`--pp-share-device`). Kernels and model runner are the real
ones; the transport is not, and each send waits for the device, which hides races of the real one.
"""

from functools import partial
from typing import Any

import torch

from .site import attribute
from .wrap import wrap


def install(devices: tuple[int, ...]) -> None:
    """Patch vLLM so that rank R runs on device `devices[R]` and gloo carries what crosses."""
    from vllm.distributed.parallel_state import GroupCoordinator
    from vllm.v1.worker.gpu_worker import Worker

    wrap(Worker, "init_device", partial(_on_device, devices))
    wrap(GroupCoordinator, "isend_tensor_dict", send_from_host)
    wrap(GroupCoordinator, "irecv_tensor_dict", receive_on_host)


def _on_device(devices: tuple[int, ...], method: Any, worker: Any) -> None:
    """Start a rank whose device others use too."""
    from vllm.platforms import current_platform

    worker.local_rank = devices[worker.rank]
    # Also for the group of the devices: NCCL would wait for a second GPU.
    current_platform.dist_backend = "gloo"
    count = torch.accelerator.device_count
    # vLLM asserts that there is a device for each rank.
    with attribute(torch.accelerator, "device_count", lambda: max(count(), len(devices))):
        method(worker)


def send_from_host(
    method: Any, group: Any, /, tensor_dict: dict[str, Any], *args: Any, **kwargs: Any
) -> Any:
    """Send copies in host memory, over the CPU group."""
    return method(group, _moved(tensor_dict, torch.device("cpu")), *args, **kwargs)


def receive_on_host(method: Any, group: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Receive; after its waits what came is moved to the rank's device."""
    tensors, handles, after = method(group, *args, **kwargs)
    if tensors is None:
        return tensors, handles, after
    return tensors, handles, [*after, lambda: tensors.update(_moved(tensors, group.device))]


def _moved(tensors: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in tensors.items()
    }
