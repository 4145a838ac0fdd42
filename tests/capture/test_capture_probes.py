"""Probes: the same for every cell of a model, and crossing the lengths where bugs hide."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.capture.probes import parity_probes

WINDOWS = st.none() | st.integers(1, 600)


def test_probes_are_the_same_every_time():
    """No cell waits for another's output: prompts and forced ids are a function of the model."""
    assert parity_probes(448, 32, 512) == parity_probes(448, 32, 512)


def test_probes_do_not_depend_on_the_process(tmp_path):
    """Another process with another hash seed draws the same ids."""
    import subprocess
    import sys

    code = "from harness.capture.probes import parity_probes as p; print(p(448, 32, 512))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert texts == {f"{parity_probes(448, 32, 512)}\n"}


def test_lengths_cross_the_window():
    """One token, a few, window - 1, window, window + 1, well past it, and an unequal batch."""
    probes = parity_probes(448, 32, 512)
    singles = [len(probe.requests[0].prompt) for probe in probes if len(probe.requests) == 1]
    assert singles[0] == 1
    assert 1 < singles[1] < 31
    assert singles[2:5] == [31, 32, 33]
    assert singles[5] > 2 * 32
    (batch,) = [probe for probe in probes if len(probe.requests) > 1]
    lengths = [len(request.prompt) for request in batch.requests]
    assert len(set(lengths)) == len(lengths)
    assert max(lengths) > 32 > min(lengths)


@given(st.integers(1, 5000), WINDOWS, st.integers(7, 4096))
def test_probes_always_fit(vocab_size, window, max_model_len):
    """Every prompt with its decode steps fits, every id is a word, every name is used once."""
    probes = parity_probes(vocab_size, window, max_model_len)
    requests = [request for probe in probes for request in probe.requests]
    assert len({request.name for request in requests}) == len(requests)
    for request in requests:
        assert len(request.prompt) >= 1
        assert len(request.forced) >= 2
        assert len(request.prompt) + len(request.forced) <= max_model_len
        assert all(0 <= word < vocab_size for word in (*request.prompt, *request.forced))


@pytest.mark.parametrize("max_model_len", [0, 1, 6])
def test_no_room_is_an_error(max_model_len):
    """A context that holds no probe is refused, not probed with nothing."""
    with pytest.raises(ValueError, match="no room"):
        parity_probes(448, 32, max_model_len)


def test_prompts_of_different_length_share_no_prefix():
    """Prompts are drawn apart, so that no cache can make one probe of two."""
    probes = parity_probes(448, 32, 512)
    starts = [request.prompt[:2] for probe in probes for request in probe.requests]
    assert len(set(starts)) == len(starts)
