"""Shrink a model: a tiny random checkpoint of the same structure."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInputError, first_line
from ..files import whole_folder
from ..source.environments import find_vllm
from ..source.pin import load_pins
from .class_defaults import registered_config
from .config import Config, Decoder, read_config, wraps_decoder
from .hub import download
from .instruments import CARD, instrument_names, instrument_path, read_card
from .shape import PREFIX, read_shape
from .shrink_plan import moved_scalars, shrunk_config

_KIND = "random"


def find_config(name: str) -> dict[str, Any]:
    """Find the configuration that a user names.

    An instrument comes first, then a shape (`shape:NAME`), a file or folder, a hub id, of which
    only `config.json` is fetched, and an architecture of the default pin's registry.

    Raises:
        BadInputError: nothing is found by that name.
    """
    if name in instrument_names():
        return read_config(instrument_path(name))
    if name.startswith(PREFIX):
        return read_shape(name)[1]
    if (path := Path(name).expanduser()).exists():
        return read_config(path)
    if name.endswith(".json") or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadInputError(f"{name} does not exist; give a config.json or a folder with one")
    if "/" in name:
        return read_config(download(name, ["config.json"]))
    return registered_config(find_vllm(load_pins().default), name)


def shrink(config: Mapping[str, Any], out: Path, *, seed: int = 0, text_only: bool = False) -> Path:
    """Build a tiny random checkpoint of a configuration's structure; return its folder.

    Weights depend on the seed and on their names alone. Whether each of them moves the logits is
    for the engine to show (LOG004). The folder appears whole or not at all, and replaces an older
    shrunk model of the same path.

    Args:
        config: the content of a `config.json`, of any size.
        out: the folder to make.
        seed: of the weights.
        text_only: of a model that wraps a decoder, make the decoder alone; the card says so.

    Raises:
        BadInputError: the config cannot be shrunk or built by transformers, or `out` holds
            something else.
    """
    plan = shrunk_config(config, text_only=text_only)
    wrapper = ", ".join(config.get("architectures") or [str(config.get("model_type"))])
    part_of = f", the decoder alone of {wrapper}" if wraps_decoder(config) else ""
    _check_replaceable(out)
    try:
        with whole_folder(out) as folder:
            folder.mkdir()
            _build(plan, folder, seed, part_of)
            _check_replaceable(out)
    except OSError as error:
        raise BadInputError(f"{out} cannot be made: {error}") from error
    return out


def _check_replaceable(out: Path) -> None:
    """Raise `BadInputError` if `out` holds what this module did not make."""
    if not out.exists():
        return
    try:
        is_ours = read_card(out).get("kind") == _KIND
    except (OSError, ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        raise BadInputError(f"{out} exists and holds no shrunk model; choose another folder")


def _build(plan: dict[str, Any], folder: Path, seed: int, part_of: str) -> None:
    try:
        import torch
        import transformers
        from safetensors.torch import load_file, save_file
        from transformers import AutoConfig, AutoModelForCausalLM

        from ..engine import random_weights
    except ImportError as error:
        raise BadInputError(
            f"shrinking a model needs torch and transformers ({error}); install pp-harness[cpu]"
        ) from error
    (folder / "config.json").write_text(json.dumps(plan), encoding="utf-8")
    # transformers and its parts refuse a config in many ways; for the user they are one.
    try:
        config = AutoConfig.from_pretrained(folder)  # it refuses some of its own values elsewhere
        for key, value in moved_scalars(config.to_dict()).items():
            setattr(config, key, value)  # one that the plan leaves to the class
        # What initialisation draws is replaced; what it sets (a decay per head) is kept.
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:
        raise BadInputError(
            f"transformers {transformers.__version__} builds no causal language model of type "
            f"{plan['model_type']!r} from the shrunk config: {first_line(error)}"
        ) from error
    random_weights.fill(model, seed)
    config.architectures = plan.get("architectures") or [type(model).__name__]
    model.config.architectures = config.architectures
    model.to(torch.bfloat16).save_pretrained(folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    add_shared_weights(tensors, model.config.to_dict())
    save_file(tensors, weights, metadata={"format": "pt"})
    # Requests decide how tokens are sampled, not the checkpoint.
    (folder / "generation_config.json").unlink(missing_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(instrument_path(instrument_names()[0]) / file, folder / file)
    card = {
        "kind": _KIND,
        "summary": f"random weights of {config.architectures[0]}, shrunk{part_of}",
        "purpose": "Shows whether an engine computes one thing twice; it knows nothing.",
        "architecture": config.architectures[0],
        "seed": seed,
        "shape": plan,
        "parameters": model.num_parameters(),
        "weights_dtype": "bfloat16",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    for made in folder.iterdir():
        made.chmod(0o644)  # safetensors keeps its files to their owner
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def add_shared_weights(tensors: dict[str, Any], config: Config) -> None:
    """Give each layer that shares a KV cache copies of its source's key and value weights.

    No engine computes with them. transformers neither has nor saves them; published checkpoints
    carry them, and vLLM refuses one without `k_norm`.
    """
    for layer, source in Decoder.of(config).kv_sources.items():
        for name in list(tensors):
            head, mark, part = name.partition(f".layers.{source}.self_attn.")
            if mark and part.startswith(("k_", "v_")):
                shared = f"{head}.layers.{layer}.self_attn.{part}"
                tensors.setdefault(shared, tensors[name].clone())
