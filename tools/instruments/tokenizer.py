"""The instruments' tokenizer: a small byte-level BPE, so that any text can be encoded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, EOS, BOS, UNK = "<pad>", "<eos>", "<bos>", "<unk>"
SPECIAL = (PAD, EOS, BOS, UNK)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE on `texts`: ids 0 to 3 are pad, eos, bos, unk; digits stand alone.

    With special tokens asked for, encoding puts bos first, as the Gemma family does.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, SPECIAL.index(BOS))],
    )
    return tokenizer


def write_tokenizer(
    tokenizer: Tokenizer, folder: Path, max_length: int, marks: Mapping[str, str] | None = None
) -> None:
    """Write the fast tokenizer files; they need no code of the checkpoint's own.

    `marks` names special tokens of a multimodal processor (`{"image_token": "<|image|>"}`).
    """
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "pad_token": PAD,
        "eos_token": EOS,
        "bos_token": BOS,
        "unk_token": UNK,
    }
    if marks:
        settings["extra_special_tokens"] = dict(marks)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
