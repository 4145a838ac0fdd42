"""What the user or a recipe asks of a running engine: sampling parameters, an adapter of LoRA."""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

from .probes import split_pass

_RANK = 8
# Weights that an adapter changes, by the last part of the module's name, as vLLM and PEFT have it.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def sampling(pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Return parameters of vLLM's `SamplingParams` from their JSON."""
    from vllm.sampling_params import StructuredOutputsParams

    asked = {name: json.loads(value) for name, value in pairs}
    if "structured_outputs" in asked:
        asked["structured_outputs"] = StructuredOutputsParams(**asked["structured_outputs"])
    return asked


def prompt_digests(output: Any) -> list[str]:
    """Digest the log-probabilities that vLLM gave for each position of a prompt, if asked to."""
    return [
        hashlib.sha256(
            repr([(token, each.logprob, each.rank) for token, each in place.items()]).encode()
        ).hexdigest()[:12]
        for place in output.prompt_logprobs or ()
        if place is not None  # nothing precedes the first token
    ]


def random_adapter(model: Path, folder: Path) -> Any:
    """Write a random adapter for every projection of a checkpoint; return vLLM's request for it.

    Raises:
        ValueError: if the checkpoint in `model` names no projection, as where weights are drawn.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file
    from vllm.lora.request import LoRARequest

    weights: dict[str, torch.Tensor] = {}
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                module = name.removesuffix(".weight")
                if module.rpartition(".")[2] not in PROJECTIONS:
                    continue
                rows, columns = file.get_slice(name).get_shape()
                draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                for part, shape in (("A", (_RANK, columns)), ("B", (rows, _RANK))):
                    values = torch.randn(shape, generator=draw) / shape[1] ** 0.5
                    weights[f"base_model.model.{module}.lora_{part}.weight"] = values
    if not weights:
        raise ValueError(f"{model.name} has no projection that an adapter could change")
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": _RANK, "lora_alpha": 1, "target_modules": PROJECTIONS}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return LoRARequest("random", 1, str(folder))


def has_adapter(name: str) -> bool:
    """Whether a probe runs with the adapter: about every second one, the same in every pass."""
    return zlib.crc32(split_pass(name)[1].encode()) % 2 == 0
