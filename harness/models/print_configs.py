"""Print default configurations of architectures as JSON: a program for a release's interpreter.

Run by path, in the environment of the release, with nothing of ours: stdin holds
`{ARCHITECTURE: {"class": NAME, "configs": ["MODULE:CLASS", ...]}}` (the class of vLLM that serves
it, and the config classes that its source imports). stdout gets a line of JSON, each architecture
with its `config` and the class that gave it, or the `reason` why there is none.
"""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

# transformers' tables of models that give text, in the order in which a class is looked up.
_TABLES = (
    "MODEL_FOR_CAUSAL_LM", "MODEL_FOR_IMAGE_TEXT_TO_TEXT", "MODEL_FOR_MULTIMODAL_LM",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM", "MODEL_FOR_MASKED_LM",
    "MODEL",
)  # fmt: skip

_NEUTRAL_TYPE = "llama"
_HEAD = re.compile("(For[A-Z][A-Za-z]+|LMHeadModel|ChatModel|Model)$")


def _model_types() -> dict[str, str]:
    """The model type of each class that transformers has, by its auto classes."""
    from transformers.models.auto import modeling_auto

    types: dict[str, str] = {}
    for table in _TABLES:
        for model_type, names in getattr(modeling_auto, f"{table}_MAPPING_NAMES", {}).items():
            for name in (names,) if isinstance(names, str) else names:
                if name not in types or model_type == f"{types[name]}_text":
                    types[name] = model_type  # of a wrapper and its decoder, the decoder's
    return types


def _config_classes(asked: dict[str, Any], architecture: str) -> Iterator[Any]:
    """Yield the classes that may give the config, the likeliest first."""
    from transformers import CONFIG_MAPPING

    types, named = _model_types(), _classes_by_stem()
    for name in (architecture, asked["class"]):
        if name in types and types[name] in CONFIG_MAPPING:
            yield CONFIG_MAPPING[types[name]]
    for place in asked["configs"]:
        module, _, name = place.partition(":")
        try:
            yield getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    for name in (architecture, asked["class"]):
        if place := named.get(_HEAD.sub("", name).lower()):
            module, _, config_class = place.partition(":")
            yield getattr(importlib.import_module(module), config_class)


def _classes_by_stem() -> dict[str, str]:
    """The config classes of transformers and vLLM by their names in lower case, less `Config`."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from vllm.transformers_utils import configs

    places = [(name, "transformers") for name in CONFIG_MAPPING_NAMES.values()]
    places += [(name, configs.__name__) for name in configs.__all__]
    return {name.removesuffix("Config").lower(): f"{module}:{name}" for name, module in places}


def _bare() -> dict[str, Any]:
    """What a config of no model holds."""
    from transformers import PretrainedConfig

    bare: dict[str, Any] = json.loads(PretrainedConfig().to_json_string(use_diff=False))
    return bare


def _own_keys(part: dict[str, Any], bare: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is as in a config of no model, in nested parts too."""
    return {
        key: _own_keys(value, bare) if isinstance(value, dict) else value
        for key, value in part.items()
        if key not in bare or value != bare[key]
    }


def _readable_type(model_type: str) -> str:
    """The type by which vLLM can read the config: published checkpoints of others bring code along.

    Llama's class keeps the keys that it does not know.
    """
    from transformers import CONFIG_MAPPING
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    return model_type if model_type in {*CONFIG_MAPPING, *_CONFIG_REGISTRY} else _NEUTRAL_TYPE


def _default(architecture: str, asked: dict[str, Any]) -> dict[str, Any]:
    reason = "neither transformers nor vLLM has a config class for it"
    for config_class in _config_classes(asked, architecture):
        place = f"{config_class.__module__.partition('.')[0]}'s {config_class.__name__}"
        # Config classes refuse their own defaults in many ways.
        try:
            config = config_class()
            # As save_pretrained writes it with all keys, less what every config has: classes of
            # parts refuse that.
            content = _own_keys(json.loads(config.to_json_string(use_diff=False)), _bare())
        except Exception as error:
            message = str(error).strip().partition("\n")[0]
            reason = f"{place} has no default: {type(error).__name__}: {message}"
            continue
        content["model_type"] = _readable_type(content.get("model_type") or config_class.model_type)
        content["architectures"] = [architecture]
        return {"config": content, "by": place}
    return {"reason": reason}


def main() -> None:
    """Answer the architectures on stdin."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no answer
    asked = json.load(sys.stdin)
    found = {name: _default(name, each) for name, each in asked.items()}
    answers.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
