"""Shrink a model: a tiny checkpoint of the same structure, with random weights that see."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInputError
from .checkpoint import read_config
from .instruments import instrument_names, instrument_path
from .partition import kv_sources
from .shape import PREFIX, read_shape
from .shrink_plan import shrunk_config
from .tiny import default_config, tiny_names

if TYPE_CHECKING:
    from .weight_effects import WeightEffects

__all__ = ["CARD", "default_config", "find_config", "shrink", "shrunk_config"]

# The model card, written last.
CARD = "instrument.json"
_KIND = "random"


def find_config(name: str) -> dict[str, Any]:
    """Return the configuration that a user names.

    An instrument comes first, then a shape (``shape:NAME``), a file or folder, a hub id, of which
    only ``config.json`` is fetched, and a known family or architecture (its tiny default).

    Raises:
        BadInputError: nothing is found by that name.

    """
    if name in instrument_names():
        return read_config(instrument_path(name))
    if name.startswith(PREFIX):
        return read_shape(name)[1].config
    if (path := Path(name).expanduser()).exists():
        return read_config(path)
    if name.endswith(".json") or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadInputError(f"{name} does not exist; give a config.json or a folder with one")
    if "/" in name:
        return read_config(_fetch_config(name))
    return default_config(name)


def shrink(config: Mapping[str, Any], out: Path, *, seed: int = 0) -> Path:
    """Build a tiny random checkpoint of a configuration's structure; return its folder.

    Weights depend on the seed and on their names alone. They are checked before anything is
    left in ``out``: each kind of parameter, and the per-layer inputs of a model that has them,
    must move the logits. The folder appears whole or not at all, and replaces an older shrunk
    model of the same path.

    Args:
        config: the content of a ``config.json``, of any size; the text part of a multimodal one
            is taken.
        out: the folder to make.
        seed: of the weights.

    Raises:
        BadInputError: the config cannot be shrunk or built by transformers, its model does not
            see one of its parameters, or ``out`` holds something else.

    """
    plan = shrunk_config(config)
    _check_replaceable(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise BadInputError(f"{out} cannot be made: {error}") from error
    try:
        _build(plan, work, seed)
        work.chmod(0o755)  # mkdtemp and safetensors keep what they make to its owner
        for file in work.iterdir():
            file.chmod(0o644)
        _check_replaceable(out)
        if out.exists():
            shutil.rmtree(out)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card of a shrunk model."""
    card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    return card


def _check_replaceable(out: Path) -> None:
    """Raise `BadInputError` if ``out`` holds what this module did not make."""
    if not out.exists():
        return
    try:
        is_ours = read_card(out).get("kind") == _KIND
    except (OSError, ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        raise BadInputError(f"{out} exists and holds no shrunk model; choose another folder")


def _build(plan: dict[str, Any], folder: Path, seed: int) -> None:
    try:
        import torch
        import transformers
        from transformers import AutoConfig, AutoModelForCausalLM

        from ..engine import random_weights
        from . import weight_effects
    except ImportError as error:
        raise BadInputError(
            f"shrinking a model needs torch and transformers ({error}); install pp-harness[cpu]"
        ) from error
    settings = {key: value for key, value in plan.items() if key != "model_type"}
    # transformers and its parts refuse a config in many ways; for the user they are one.
    try:
        config = AutoConfig.for_model(plan["model_type"], **settings)
        # What initialisation draws is replaced; what it sets (a decay per head) is kept.
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInputError(
            f"transformers {transformers.__version__} builds no causal language model of type "
            f"{plan['model_type']!r} from the shrunk config: {reason}"
        ) from error
    model.eval()
    random_weights.fill(model, seed)
    try:
        seen = weight_effects.measure(model, int(plan["vocab_size"]))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadInputError(
            f"the shrunk {plan['model_type']} is built but does not run in transformers "
            f"{transformers.__version__} ({reason}); a size that the cut does not know may "
            "contradict another"
        ) from error
    config.architectures = plan.get("architectures") or [type(model).__name__]
    model.config.architectures = config.architectures
    model.to(torch.bfloat16).save_pretrained(folder)
    weights = folder / "model.safetensors"
    _add_shared_weights(weights, model.config.to_dict())
    # The weights say how results are made, not how a session should be sampled.
    (folder / "generation_config.json").unlink(missing_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(instrument_path(instrument_names()[0]) / file, folder / file)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    card = _card(plan, config.architectures[0], seed, seen, model.num_parameters(), versions)
    (folder / CARD).write_text(json.dumps(card, indent=2) + os.linesep, encoding="utf-8")


def _add_shared_weights(file: Path, config: Mapping[str, Any]) -> None:
    """Give layers that share a KV cache the key and value weights that no engine computes with.

    transformers neither has nor saves them; published checkpoints carry them and vLLM refuses one
    without ``k_norm``. They are copies of the source layer's.
    """
    sources = kv_sources(config)
    if not sources:
        return
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    for layer, source in sources.items():
        for name in list(tensors):
            head, mark, part = name.partition(f".layers.{source}.self_attn.")
            if mark and part.startswith(("k_", "v_")):
                other = f"{head}.layers.{layer}.self_attn.{part}"
                tensors.setdefault(other, tensors[name].clone())
    save_file(tensors, file, metadata={"format": "pt"})


def _card(
    plan: Mapping[str, Any],
    architecture: str,
    seed: int,
    seen: WeightEffects,
    parameters: int,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    kind, effect = seen.smallest
    return {
        "kind": _KIND,
        "summary": f"random weights of {architecture}, shrunk",
        "purpose": "Shows whether an engine computes one thing twice; it knows nothing.",
        "architecture": architecture,
        "seed": seed,
        "shape": dict(plan),
        "parameters": parameters,
        "weights_dtype": "bfloat16",
        "measured": {
            "smallest_effect": effect,
            "smallest_effect_of": kind,
            "kinds_of_parameters": len(seen.effects),
            "logits_spread_over_tokens": seen.spread_over_tokens,
            "logits_spread_over_positions": seen.spread_over_positions,
            "top_tokens": seen.top_tokens,
            "effects": seen.effects,
        },
        "versions": dict(versions),
    }


def _fetch_config(hub_id: str) -> Path:
    """Fetch the ``config.json`` of a hub checkpoint, nothing else."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise BadInputError(
            f"{hub_id} is no file here, and huggingface_hub is not installed; give a config.json"
        ) from error
    # The hub, its client and the network fail in many ways; for the user they are one.
    try:
        return Path(hf_hub_download(hub_id, "config.json"))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInputError(
            f"{hub_id} is no file here and the hub does not give its config.json ({reason}); "
            f"give a config.json, or a known family ({', '.join(tiny_names())})"
        ) from error
