"""Make a tiny model whose image features enter at layers of every stage, without weights.

    python -m tools.deepstack FOLDER

Granite 4 Vision, whose features of seven kinds ("deepstack") are added to the hidden states before
as many layers: those for later stages cross each boundary beside the hidden states. The engine
draws weights (`--pp-model shape:FOLDER --pp-recipe images`); tokenizer and marks are those of `mm`.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from harness.models.instruments import instrument_path

# Pixels of a tile and of a patch, and how the window of patches becomes one of queries: a tile
# makes 4 x 4 features.
_TILE, _PATCH, _RATE = 32, 4, "4/8"
_RESOLUTIONS = [[_TILE, 2 * _TILE], [2 * _TILE, _TILE], [2 * _TILE, 2 * _TILE]]
# The width that the model's own Q-Former allows: a head of 64.
_VISION_WIDTH = 64
# Layers of the decoder at which features enter, of eight: some on each stage at PP 2 and 4.
_LAYERS, _OF_TOWER, _OF_SPACE = 8, ((-3, 1), (-2, 4), (-1, 6)), (0, 2, 5, 7)


def config(vocabulary: int, image_token: int) -> dict[str, object]:
    """Return the config.json; multipliers stay away from 1.0, as in published ones."""
    return {
        "architectures": ["Granite4VisionForConditionalGeneration"],
        "model_type": "granite4_vision",
        "image_token_index": image_token,
        "image_grid_pinpoints": _RESOLUTIONS,
        "image_seq_length": (_TILE // _PATCH // 2) ** 2,
        "downsample_rate": _RATE,
        "deepstack_layer_map": [list(pair) for pair in _OF_TOWER],
        "use_spatial_sampling": True,
        "spatial_target_layers": list(_OF_SPACE),
        "use_image_newline_parameter": True,
        "vision_feature_select_strategy": "full",
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "granite",
            "architectures": ["GraniteForCausalLM"],
            "vocab_size": vocabulary,
            "hidden_size": 128,
            "intermediate_size": 96,
            "num_hidden_layers": _LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.5,
            "logits_scaling": 2.0,
            "tie_word_embeddings": False,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": _VISION_WIDTH,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 1,
            "image_size": _TILE,
            "patch_size": _PATCH,
        },
    }


def processor(image_mark: str) -> dict[str, object]:
    """Return the processor_config.json."""
    tile = {"height": _TILE, "width": _TILE}
    return {
        "processor_class": "Granite4VisionProcessor",
        "patch_size": _PATCH,
        "downsample_rate": _RATE,
        "vision_feature_select_strategy": "full",
        "image_token": image_mark,
        "image_processor": {
            "image_processor_type": "LlavaNextImageProcessor",
            "size": tile,
            "crop_size": tile,
            "image_grid_pinpoints": _RESOLUTIONS,
        },
    }


def write(folder: Path) -> None:
    """Write config, processor and tokenizer to a new folder."""
    source = instrument_path("mm")
    read = {
        name: json.loads((source / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("config", "tokenizer_config")
    }
    folder.mkdir(parents=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / file, folder / file)
    documents = {
        "config": config(
            read["config"]["text_config"]["vocab_size"], read["config"]["image_token_id"]
        ),
        "processor_config": processor(
            read["tokenizer_config"]["extra_special_tokens"]["image_token"]
        ),
    }
    for name, document in documents.items():
        text = json.dumps(document, indent=1)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Write the folder that the command names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if folder.exists():
        sys.exit(f"{folder} exists; give a new folder")
    write(folder)


if __name__ == "__main__":
    main()
