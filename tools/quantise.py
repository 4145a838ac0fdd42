"""Quantise the projections of a checkpoint into compressed-tensors, for which vLLM has kernels.

    python -m tools.quantise NAME|FOLDER w8a8|fp8 NEW_FOLDER

Weights are rounded to nearest with a scale for each output channel; vLLM quantises activations
token by token. It is no calibration: the result says something about an engine, not of a model.
"""

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.engine.asked import PROJECTIONS
from harness.models.checkpoint import resolve_model


@dataclass(frozen=True)
class Scheme:
    """Numbers of a scheme: `largest` is the greatest that `dtype` (of torch) holds."""

    kind: str
    dtype: str
    largest: float
    file_format: str


SCHEMES = {
    "w8a8": Scheme("int", "int8", 127.0, "int-quantized"),
    "fp8": Scheme("float", "float8_e4m3fn", 448.0, "float-quantized"),
}


def quantised(weight: Any, scheme: Scheme) -> tuple[Any, Any]:
    """Return a weight [out, in] rounded to nearest, and the scale of each output channel [out, 1].

    Their product is the weight, but for rounding.
    """
    import torch

    values = weight.float()
    scale = values.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / scheme.largest
    scaled = values / scale
    whole = scaled.round() if scheme.kind == "int" else scaled
    return whole.to(getattr(torch, scheme.dtype)), scale


def quantisation_config(scheme: Scheme) -> dict[str, Any]:
    """Return what config.json says of a scheme, in the words of compressed-tensors."""
    numbers = {"num_bits": 8, "type": scheme.kind, "symmetric": True}
    group = {
        "targets": [rf"re:.*\.{name}$" for name in PROJECTIONS],
        "weights": {**numbers, "strategy": "channel", "dynamic": False},
        "input_activations": {**numbers, "strategy": "token", "dynamic": True},
    }
    return {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": scheme.file_format,
        "config_groups": {"group_0": group},
        "ignore": [],
    }


def quantise(source: Path, scheme: Scheme, folder: Path) -> int:
    """Write the checkpoint in `source` quantised into a new folder; count the weights that are.

    Raises:
        FileExistsError: if the folder is there.
    """
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    count = 0
    for path in folder.glob("*.safetensors"):
        weights = {}
        for name, weight in load_file(path).items():
            module = name.removesuffix(".weight")
            if module.rpartition(".")[2] in PROJECTIONS:
                weights[name], weights[f"{name}_scale"] = quantised(weight, scheme)
                count += 1
            else:
                weights[name] = weight
        save_file(weights, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = quantisation_config(scheme)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return count


def main() -> None:
    """Quantise what the command line names."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("source", help="a bundled instrument or a checkpoint folder")
    parser.add_argument("scheme", choices=SCHEMES)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    source = resolve_model(given.source).path
    count = quantise(source, SCHEMES[given.scheme], given.folder)
    sys.stdout.write(f"{given.folder}: {count} projections in {given.scheme}\n")


if __name__ == "__main__":
    main()
