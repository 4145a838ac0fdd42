"""Several ranks on one GPU: boundary tensors go through host memory, since NCCL refuses that.

For a host with fewer GPUs than stages (`--pp-share-device`). Kernels and model runner are the real
ones; the transport is not, and each send waits for the device, which hides races of the real one.
"""

from typing import Any

import torch

from .wrap import names_of_vllm, wrap


def install(devices: tuple[int, ...]) -> None:
    """Patch vLLM so that rank R runs on device `devices[R]` and gloo carries what crosses."""
    with names_of_vllm():
        from vllm.distributed.parallel_state import GroupCoordinator
        from vllm.v1.worker.gpu_worker import Worker

    wrap(Worker, "init_device", lambda method: on_device(method, devices))
    wrap(GroupCoordinator, "isend_tensor_dict", sending_from_host)
    wrap(GroupCoordinator, "irecv_tensor_dict", receiving_on_host)


def on_device(method: Any, devices: tuple[int, ...]) -> Any:
    """Return `Worker.init_device` for a rank whose device others use too."""

    def init_device(self: Any) -> None:
        from vllm.platforms import current_platform

        self.local_rank = devices[self.rank]
        # Also for the group of the devices: NCCL would wait for a second GPU.
        current_platform.dist_backend = "gloo"
        count = torch.accelerator.device_count
        # vLLM asserts that there is a device for each rank.
        torch.accelerator.device_count = lambda: max(count(), len(devices))
        try:
            method(self)
        finally:
            torch.accelerator.device_count = count

    return init_device


def sending_from_host(method: Any) -> Any:
    """Return `isend_tensor_dict` that sends copies in host memory, over the CPU group."""

    def isend_tensor_dict(self: Any, tensor_dict: dict[str, Any], *args: Any, **kw: Any) -> Any:
        return method(self, _moved(tensor_dict, torch.device("cpu")), *args, **kw)

    return isend_tensor_dict


def receiving_on_host(method: Any) -> Any:
    """Return `irecv_tensor_dict` that, after its waits, moves what came to the rank's device."""

    def irecv_tensor_dict(self: Any, *args: Any, **kwargs: Any) -> Any:
        tensors, handles, after = method(self, *args, **kwargs)
        if tensors is None:
            return tensors, handles, after

        def to_device() -> None:
            tensors.update(_moved(tensors, self.device))

        return tensors, handles, [*after, to_device]

    return irecv_tensor_dict


def _moved(tensors: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in tensors.items()
    }
