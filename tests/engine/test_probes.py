"""Probes: the same for every cell of a model, and crossing the lengths where bugs hide."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.probes import AGAIN, chunk_tokens, probe_set, second_pass

WINDOWS = st.none() | st.integers(1, 600)
PROFILES = st.sampled_from(["parity", "stress"])


@pytest.mark.parametrize("profile", ["parity", "stress"])
def test_probes_are_the_same_every_time(profile):
    """No cell waits for another's output: prompts and forced ids are a function of the model."""
    assert probe_set(profile, 448, 32, 512) == probe_set(profile, 448, 32, 512)


def test_probes_do_not_depend_on_the_process(tmp_path):
    """Another process with another hash seed draws the same ids."""
    import subprocess
    import sys

    code = "from harness.engine.probes import probe_set as p; print(p('parity', 448, 32, 512))"
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
    assert texts == {f"{probe_set('parity', 448, 32, 512)}\n"}


@pytest.mark.parametrize("profile", ["parity", "stress"])
def test_lengths_cross_what_matters(profile):
    """1 to 5 tokens, the window and one to either side, past a chunk, well past, a full context."""
    probes = probe_set(profile, 448, 32, 512)
    lengths = {len(one.prompt) for probe in probes for one in probe.requests}
    assert {1, 2, 3, 4, 5, 31, 32, 33, chunk_tokens(512) + 1} <= lengths
    assert any(64 < length < 128 and length != chunk_tokens(512) + 1 for length in lengths)
    ends = [len(one.prompt) + len(one.forced) for probe in probes for one in probe.requests]
    assert max(ends) == 512


def test_parity_decodes_batches_of_two_to_eight():
    """Batches of 2 to 8 unequal prompts reach a decode step whole; all others run alone."""
    probes = probe_set("parity", 448, 32, 512)
    batches = [probe.requests for probe in probes if len(probe.requests) > 1]
    assert [len(requests) for requests in batches] == [2, 3, 4, 5, 6, 7, 8]
    for requests in batches:
        assert {len(one.forced) for one in requests} == {2}
        assert len({len(one.prompt) for one in requests}) > 1


def test_stress_probes_are_in_flight_together_and_share_prefixes():
    """More is in flight than a step may hold, and later prompts begin as earlier ones did."""
    flood, revisit = probe_set("stress", 448, 32, 512)
    assert sum(len(one.prompt) for one in flood.requests) > 4 * chunk_tokens(512)
    known = {one.prompt[:-1] for one in flood.requests}
    assert all(one.prompt[:-1] in known for one in revisit.requests)


@given(PROFILES, st.integers(1, 5000), WINDOWS, st.integers(5, 4096))
def test_probes_always_fit(profile, vocab_size, window, max_model_len):
    """Every prompt with its decode steps fits, every id is a word, every name is used once."""
    first = probe_set(profile, vocab_size, window, max_model_len)
    probes = (*first, *second_pass(profile, first))
    requests = [request for probe in probes for request in probe.requests]
    assert len({request.name for request in requests}) == len(requests)
    for request in requests:
        assert len(request.prompt) >= 1
        assert len(request.forced) >= 2
        assert len(request.prompt) + len(request.forced) <= max_model_len
        assert all(0 <= word < vocab_size for word in (*request.prompt, *request.forced))


@pytest.mark.parametrize(("profile", "turn"), [("parity", 1), ("stress", -1)])
def test_the_second_pass_is_the_first_in_another_order(profile, turn):
    """The same tokens under other names; rows are turned only where PP=N turns them too."""
    first = probe_set(profile, 448, 32, 512)
    again = second_pass(profile, first)
    assert [probe.name for probe in reversed(again)] == [AGAIN + probe.name for probe in first]
    for one, other in zip(first, reversed(again), strict=True):
        expected = one.requests[::turn]
        assert [r.name for r in other.requests] == [AGAIN + r.name for r in expected]
        assert [r.prompt for r in other.requests] == [r.prompt for r in expected]
        assert [r.forced for r in other.requests] == [r.forced for r in expected]


@pytest.mark.parametrize("max_model_len", [0, 1, 4])
def test_no_room_is_an_error(max_model_len):
    """A context that holds no probe is refused, not probed with nothing."""
    with pytest.raises(ValueError, match="no room"):
        probe_set("parity", 448, 32, max_model_len)


def test_parity_prompts_share_no_prefix():
    """Prompts are drawn apart, so that no cache can make one probe of two."""
    probes = probe_set("parity", 448, 32, 512)
    starts = [one.prompt[:3] for probe in probes for one in probe.requests if len(one.prompt) > 2]
    assert len(set(starts)) == len(starts)
