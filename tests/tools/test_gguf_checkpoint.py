"""The tokenizer of a GGUF file splits as SentencePiece would."""

import pytest

from tools.gguf_checkpoint import main, merges_from_scores, sentencepiece_tokenizer

# Control tokens, bytes, a piece that the user defined, and pieces with their scores.
CONTROL, BYTE, USER, NORMAL = 3, 6, 4, 1
PIECES = {"▁": -9.0, "a": -10.0, "b": -11.0, "ab": -1.0, "▁ab": -2.0, "ba": -3.0, "aba": -4.0}


def table(**changes):
    tokens = ["<unk>", "<bos>", *(f"<0x{byte:02X}>" for byte in range(256)), "\n\n", *PIECES]
    types = [CONTROL] * 2 + [BYTE] * 256 + [USER] + [NORMAL] * len(PIECES)
    return {
        "tokens": tokens,
        "token_type": types,
        "scores": [0.0] * 259 + list(PIECES.values()),
        "unknown_token_id": 0,
        "bos_token_id": 1,
        "add_bos_token": True,
        "add_space_prefix": False,
    } | changes


def test_the_best_score_merges_first():
    """A join of two pieces is a merge; merges come by the score of the join."""
    assert merges_from_scores(PIECES) == [
        ("a", "b"),
        ("▁", "ab"),
        ("b", "a"),
        ("a", "ba"),
        ("ab", "a"),
    ]


def test_text_is_split_by_merges_and_read_back():
    """Pieces, a piece of the user's, bytes of what is no piece; decoding gives the text."""
    pytest.importorskip("tokenizers", reason="it comes with transformers")
    tokenizer = sentencepiece_tokenizer(table())
    text = "aba ab\n\nü"
    found = tokenizer.encode(text)
    assert found.tokens == ["<bos>", "aba", "▁ab", "\n\n", "<0xC3>", "<0xBC>"]
    assert tokenizer.decode(found.ids) == text
    prefixed = sentencepiece_tokenizer(table(add_space_prefix=True, add_bos_token=False))
    assert prefixed.encode("ab").tokens == ["▁ab"]


def test_what_is_no_gguf_file_is_refused(tmp_path, capsys):
    """One clear line and status 2."""
    file = tmp_path / "model.gguf"
    file.write_bytes(b"PK")
    assert main([str(file), str(tmp_path / "out")]) == 2
    assert "model.gguf is no GGUF file" in capsys.readouterr().err
