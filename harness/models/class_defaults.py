"""Default configurations of the architectures that a release's registry lists.

They come from transformers' or vLLM's own classes, in the release's environment: a program there
prints them (print_configs.py), since the controller never imports vLLM. Where a default is not what
published models have, `corrections.toml` says so.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInputError
from ..source.pin import InstalledVllm
from ..source.registry import ModelClass, config_classes, generating_models, kind_without_text
from .shrink_plan import corrected, corrections

_PROGRAM = Path(__file__).with_name("print_configs.py")
_SECONDS = 600


@dataclass(frozen=True)
class ClassDefault:
    """The default configuration of an architecture and the class that gave it, or why none did."""

    config: dict[str, Any] | None = None
    by: str = ""
    reason: str = ""


def registered_config(vllm: InstalledVllm, architecture: str) -> dict[str, Any]:
    """Find the default configuration of one architecture of the release's registry.

    Raises:
        BadInputError: the registry does not have it, it generates no text, or no class gives a
            configuration.
    """
    root = vllm.package_dir.parent
    if kind := kind_without_text(root, [architecture]):
        raise BadInputError(
            f"{architecture} is {kind} in vLLM {vllm.release}, which has no logits to compare; "
            "give a model that generates text"
        )
    served = [model for model in generating_models(root) if architecture in model.architectures]
    if not served:
        raise BadInputError(
            f"no default configuration for {architecture!r}: the registry of vLLM {vllm.release} "
            "has no such architecture; give one that it has, a config.json or a hub id"
        )
    found = class_defaults(vllm, served)[architecture]
    if found.config is None:
        raise BadInputError(
            f"{architecture}: {found.reason}; give a config.json or a hub id of a published model"
        )
    return found.config


def class_defaults(
    vllm: InstalledVllm, models: Iterable[ModelClass], tree: Path | None = None
) -> dict[str, ClassDefault]:
    """Ask the release's environment for the default configuration of each architecture.

    The sources of `models` are in the release, or in `tree`.

    Raises:
        BadInputError: the environment has no transformers that answers.
    """
    root = tree or vllm.package_dir.parent
    asked = {
        architecture: {"class": model.name, "configs": config_classes(root, model)}
        for model in models
        for architecture in model.architectures
    }
    command = [str(vllm.python or sys.executable), str(_PROGRAM)]
    answer = subprocess.run(
        command,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BadInputError(
            f"no configs from the environment of vLLM {vllm.release} ({command[0]}): {last}"
        )
    found = {name: ClassDefault(**each) for name, each in json.loads(answer.stdout).items()}
    return {name: _reviewed(name, each) for name, each in found.items()}


def _reviewed(architecture: str, found: ClassDefault) -> ClassDefault:
    """Apply the table of corrections to what a class gave."""
    entry = corrections().get(architecture, {})
    if why := entry.get("none"):
        return ClassDefault(reason=why)
    config, by = found.config, found.by
    if config is None:
        if not (model_type := entry.get("read_as")):
            return found
        config = {"model_type": model_type, "architectures": [architecture]}
        by = f"the table of corrections, after {entry['follows']}"
    return ClassDefault(corrected(config, is_default=True), by)
