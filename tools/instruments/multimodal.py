"""Build an instrument with random weights behind a multimodal class, as published models name it.

Text goes through it, and images where the recipe `images` asks for them: engines on a GPU try one
of their own before the first request. Only the builder imports this module, which needs torch and
transformers.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForCausalLM,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4TextConfig,
    Gemma4VideoProcessor,
    Gemma4VisionConfig,
)

from harness.engine import random_weights

from . import weight_effects
from .recipes import RandomRecipe
from .tokenizer import write_tokenizer
from .training import checkpoint_tensors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROCESSOR = "processor_config.json"
# Tokens that an image may take: the least that the processor knows.
SOFT_TOKENS = 70
# Marks of other modalities in a prompt, by the names that the processor asks a tokenizer for.
# They come behind the shared vocabulary.
MARKS = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "video_token": "<|video|>",
}


def build(recipe: RandomRecipe, tokenizer: Tokenizer, folder: Path) -> dict[str, object]:
    """Write all but the card to `folder`; return the measurements.

    Weights depend on the seed and on their names alone.

    Raises:
        BadInputError: a kind of weight of the text decoder does not move the logits.
    """
    tokenizer.add_special_tokens(list(MARKS.values()))
    vocabulary = tokenizer.get_vocab_size()
    text = Gemma4TextConfig(
        vocab_size=vocabulary, vocab_size_per_layer_input=vocabulary, **recipe.shape
    )
    config = Gemma4Config(
        text_config=text,
        # Published configs have the length, and vLLM reads it; transformers does not.
        vision_config=Gemma4VisionConfig(**recipe.vision, default_output_length=SOFT_TOKENS),
        audio_config=None,
        architectures=["Gemma4ForConditionalGeneration"],
        dtype="bfloat16",
        tie_word_embeddings=True,
        **{
            f"{name.removesuffix('_token')}_token_{'index' if name == 'eoa_token' else 'id'}": (
                tokenizer.token_to_id(mark)
            )
            for name, mark in MARKS.items()
        },
    )
    decoder = Gemma4ForCausalLM(text).to(torch.float32).eval()
    random_weights.fill(decoder, recipe.seed)
    effects = weight_effects.measure(decoder, vocabulary)
    whole = Gemma4ForConditionalGeneration(config).to(torch.float32)
    random_weights.fill(whole, recipe.seed)
    whole.model.language_model.load_state_dict(decoder.model.state_dict())
    save_file(checkpoint_tensors(whole), folder / "model.safetensors", metadata={"format": "pt"})
    whole.config.save_pretrained(folder)
    write_tokenizer(tokenizer, folder, text.max_position_embeddings, MARKS)
    _write_processor(recipe, folder)
    kind, effect = effects.smallest
    return {
        "smallest_effect": effect,
        "smallest_effect_of": kind,
        "top_tokens": effects.top_tokens,
    }


def _write_processor(recipe: RandomRecipe, folder: Path) -> None:
    """Write `processor_config.json`; the tokenizer, which it names, is in `folder` already."""
    sizes = {"patch_size": recipe.vision["patch_size"], "max_soft_tokens": SOFT_TOKENS}
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(**sizes),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        video_processor=Gemma4VideoProcessor(**sizes),
    )
    with tempfile.TemporaryDirectory(dir=folder) as work:
        processor.save_pretrained(work)  # a tokenizer of its own too
        shutil.copyfile(Path(work) / PROCESSOR, folder / PROCESSOR)
