"""Where a prompt keeps its logits."""

import pytest

pytest.importorskip("torch", reason="the tracer runs inside the engine, which brings torch")

from harness.capture.hooks.tracer import kept_positions


def test_a_small_vocabulary_keeps_every_row():
    """Instruments lose nothing."""
    assert kept_positions(1024, 448) == set(range(1024))


def test_a_real_vocabulary_keeps_a_bounded_spread():
    """First and last are kept, and never more than 32 MiB of float32."""
    for length in (33, 512, 4096):
        kept = kept_positions(length, 262144)
        assert (min(kept), max(kept), len(kept)) == (0, length - 1, 32)
    assert kept_positions(32, 262144) == set(range(32))
