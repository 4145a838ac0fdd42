"""Turn a GGUF file into a checkpoint folder that vLLM and the harness read.

    python -m tools.gguf_checkpoint FILE FOLDER     (needs `pip install 'pp-harness[gguf]'`)

Weights are dequantised by transformers and saved in float32, so that nothing is rounded a second
time. The tokenizer is made from the file's own tables.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

# The type of a token in GGUF's table (`gguf.constants.TokenType`).
_CONTROL, _USER_DEFINED = 3, 4
_SPACE = "▁"
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_TABLE = "tokenizer."


def merges_from_scores(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Return the merges of a SentencePiece BPE vocabulary, the best score first.

    SentencePiece stores a score for each piece and no merges: any two neighbours whose join is a
    piece may merge, and the join with the highest score goes first.
    """
    merges = [
        (score, piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    return [(left, right) for _, left, right in sorted(merges, key=lambda merge: -merge[0])]


def sentencepiece_tokenizer(table: dict[str, Any]) -> Any:
    """Build a tokenizer of `tokenizers` from GGUF's table of a SentencePiece BPE model.

    transformers 5.8 makes a unigram model of such a table, which splits words otherwise.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
    from tokenizers.models import BPE

    tokens, types = table["tokens"], table["token_type"]
    whole = {t for t, kind in zip(tokens, types, strict=True) if kind in (_CONTROL, _USER_DEFINED)}
    scores = {t: s for t, s in zip(tokens, table["scores"], strict=True) if t not in whole}
    unknown = tokens[table["unknown_token_id"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        BPE(vocabulary, merges_from_scores(scores), unk_token=unknown, byte_fallback=True)
    )
    prefix = [normalizers.Prepend(_SPACE)] if table.get("add_space_prefix", True) else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", _SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == _CONTROL)
            for token, kind in zip(tokens, types, strict=True)
            if token in whole
        ]
    )
    if table.get("add_bos_token"):
        bos = tokens[table["bos_token_id"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocabulary[bos])]
        )
    return tokenizer


def read_table(file: Path) -> dict[str, Any]:
    """Read the tokenizer's table of a GGUF file."""
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    return {
        name.removeprefix(_TABLE).removeprefix("ggml."): field.contents()
        for name, field in fields.items()
        if name.startswith(_TABLE)
    }


def convert(file: Path, folder: Path) -> None:
    """Write config, weights in float32 and tokenizer of the GGUF file `file` into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    # What is saved is no longer quantised; transformers 5.17 refuses to save it while it says so.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    table = read_table(file)
    special = {
        f"{name}_token": table["tokens"][table[f"{key}_token_id"]]
        for name, key in _SPECIAL.items()
        if f"{key}_token_id" in table
    }
    if table["model"] == "llama":
        made = sentencepiece_tokenizer(table)
    else:
        made = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, clean_up_tokenization_spaces=False, **special
    )
    tokenizer.chat_template = table.get("chat_template")
    tokenizer.save_pretrained(folder)


def main(arguments: list[str]) -> int:
    """Convert and print where the checkpoint lies; return 2 where the file is none."""
    parser = argparse.ArgumentParser(prog="python -m tools.gguf_checkpoint")
    parser.add_argument("file", type=Path, help="GGUF file; join one that comes in parts by cat")
    parser.add_argument("folder", type=Path, help="folder for the checkpoint")
    given = parser.parse_args(arguments)
    if not given.file.is_file() or given.file.read_bytes()[:4] != b"GGUF":
        sys.stderr.write(f"{given.file} is no GGUF file\n")
        return 2
    convert(given.file.resolve(), given.folder)
    sys.stdout.write(f"{given.folder}: pytest suites/ --pp 2 --pp-model {given.folder}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
