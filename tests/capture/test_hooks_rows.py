"""Which rows of a prompt keep their logits."""

import pytest

pytest.importorskip("torch", reason="the tracer runs inside the engine, which brings torch")

from harness.capture.hooks.tracer import kept_rows


def test_a_small_vocabulary_keeps_every_row():
    """Instruments lose nothing."""
    assert kept_rows(1024, 448) == list(range(1024))
    assert kept_rows(0, 448) == []


def test_a_real_vocabulary_keeps_a_bounded_spread():
    """First and last are kept, none twice, and never more than 32 MiB of float32."""
    for rows in (33, 512, 4096):
        kept = kept_rows(rows, 262144)
        assert (kept[0], kept[-1], len(kept)) == (0, rows - 1, 32)
        assert kept == sorted(set(kept))
    assert kept_rows(32, 262144) == list(range(32))
