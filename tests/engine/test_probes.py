"""Probes: the same for every cell of a model, and crossing the lengths where bugs hide."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.capture.record import SentProbe
from harness.engine.probes import (
    aborted_requests,
    chunk_tokens,
    floor_passes,
    kept_positions,
    probe_set,
    sensitivity_request,
    split_pass,
    step_tokens,
)
from harness.engine.settings import EngineSettings, Profile

WINDOWS = st.none() | st.integers(1, 600)
PROFILES = st.sampled_from(list(Profile))
BLOCK = 128


def settings(profile="parity", vocab_size=448, window=32, max_model_len=512, tp=1):
    """Settings of an engine, as far as its probes depend on them."""
    return EngineSettings(
        pp=1,
        tp=tp,
        profile=Profile(profile),
        vocab_size=vocab_size,
        sliding_window=window,
        max_model_len=max_model_len,
    )


def made(*args, **given):
    """The probes of an engine with blocks of `BLOCK` tokens."""
    return probe_set(settings(*args, **given), BLOCK)


@pytest.mark.parametrize("profile", ["parity", "stress"])
def test_probes_are_the_same_every_time(profile):
    """No cell waits for another's output: prompts and forced ids are a function of the model."""
    assert made(profile) == made(profile)


def test_probes_do_not_depend_on_the_process(tmp_path):
    """Another process with another hash seed draws the same ids."""
    import subprocess
    import sys

    code = (
        "from harness.engine.probes import probe_set; "
        "from harness.engine.settings import EngineSettings as Settings; "
        "print(probe_set(Settings(pp=1, vocab_size=448, sliding_window=32), 128))"
    )
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
    assert texts == {f"{made()}\n"}


@pytest.mark.parametrize("profile", ["parity", "stress"])
def test_lengths_cross_what_matters(profile):
    """1 to 5 tokens, window and block and around them, past a chunk, well past, a full context."""
    probes = made(profile)
    lengths = {len(one.prompt) for probe in probes for one in probe.requests}
    assert {
        1,
        2,
        3,
        4,
        5,
        31,
        32,
        33,
        *range(BLOCK - 2, BLOCK + 2),
        chunk_tokens(512) + 1,
    } <= lengths
    assert any(64 < length < 128 and length != chunk_tokens(512) + 1 for length in lengths)
    ends = [len(one.prompt) + len(one.forced) for probe in probes for one in probe.requests]
    assert max(ends) == 512


@pytest.mark.parametrize("profile", ["parity", "stress"])
def test_decode_steps_open_a_block(profile):
    """A row that is decoded is the first of the second block, which no prompt has opened."""
    opening = [
        one
        for probe in made(profile)
        for one in probe.requests
        if len(one.prompt) < BLOCK and BLOCK in one.positions
    ]
    assert {len(one.prompt) for one in opening} >= {BLOCK - 2, BLOCK - 1}


@pytest.mark.parametrize("profile", ["parity", "stress"])
@pytest.mark.parametrize(
    ("vocab", "tp", "edges"),
    [
        (448, 1, {0, 447}),
        (448, 2, {0, 223, 224, 447}),
        (300, 4, {0, 79, 80, 159, 160, 239, 240, 299}),  # padded to 320
    ],
)
def test_the_edges_of_the_vocabulary_are_asked_for(profile, vocab, tp, edges):
    """The first and last id, and those at the edge of a rank's shard, are read as prompt."""
    (one,) = [
        one for probe in made(profile, vocab, tp=tp) for one in probe.requests if one.name == "ids"
    ]
    assert set(one.prompt) == edges
    assert set(one.forced) <= edges


def test_parity_decodes_batches_up_to_eight_and_of_24():
    """Batches of unequal prompts reach a decode step whole; all others run alone."""
    batches = [probe.requests for probe in made() if len(probe.requests) > 1]
    assert [len(requests) for requests in batches] == [2, 3, 4, 5, 6, 7, 8, 4, 24]
    for requests in batches:
        assert len({len(one.forced) for one in requests}) == 1
        assert len({len(one.prompt) for one in requests}) > 1


@pytest.mark.parametrize(("sequences", "tokens"), [(32, 256), (256, 928)])
def test_step_of_stress_holds_a_chunk_beside_the_decodes(sequences, tokens):
    """More requests at once than probes leave room for prompts, which are cut all the same."""
    assert step_tokens(Profile.STRESS, 2048, sequences) == tokens
    assert tokens - sequences >= chunk_tokens(2048) - 32
    flood = made("stress", max_model_len=2048, window=512)[1]
    assert sum(len(one.prompt) for one in flood.requests) > 4 * tokens


def test_stress_probes_are_in_flight_together_and_share_prefixes():
    """More is in flight than a step may hold, and later prompts begin as earlier ones did."""
    crowd, flood, revisit = made("stress")
    assert sum(len(one.prompt) for one in crowd.requests) <= chunk_tokens(512)
    assert sum(len(one.prompt) for one in flood.requests) > 4 * chunk_tokens(512)
    known = {one.prompt[:-1] for one in flood.requests}
    assert all(one.prompt[:-1] in known for one in revisit.requests)


@given(PROFILES, st.integers(1, 5000), WINDOWS, st.integers(5, 4096))
def test_probes_always_fit(profile, vocab_size, window, max_model_len):
    """Every prompt with its decode steps fits, every id is a word, every name is used once."""
    first = made(profile, vocab_size, window, max_model_len)
    probes = [probe for one in (first, *floor_passes(profile, first)) for probe in one]
    requests = [request for probe in probes for request in probe.requests]
    assert len({request.name for request in requests}) == len(requests)
    for request in requests:
        assert len(request.prompt) >= 1
        assert len(request.forced) >= 2
        assert len(request.prompt) + len(request.forced) <= max_model_len
        assert all(0 <= word < vocab_size for word in (*request.prompt, *request.forced))


@pytest.mark.parametrize("profile", list(Profile))
def test_floor_passes_repeat_the_requests_under_names_of_their_own(profile):
    """The same tokens in another order; every name says its pass."""
    first = made(profile)
    asked = {one.name: one for probe in first for one in probe.requests}
    for number, floor in enumerate(floor_passes(profile, first), start=1):
        again = [one for probe in floor for one in probe.requests]
        assert {split_pass(one.name)[0] for one in again} == {number}
        assert {split_pass(one.name)[1]: (one.prompt, one.forced) for one in again} == {
            name: (one.prompt, one.forced) for name, one in asked.items()
        }
        assert [split_pass(one.name)[1] for one in again] != list(asked)
    assert {split_pass(name) for name in asked} == {(0, name) for name in asked}


def test_parity_repeats_its_batches_row_by_row():
    """Rows in another order would move, and would excuse what must be equal."""
    first = {probe.name: [one.name for one in probe.requests] for probe in made()}
    (floor,) = floor_passes(Profile.PARITY, made())
    for probe in floor:
        names = [split_pass(one.name)[1] for one in probe.requests]
        assert names == first[split_pass(probe.name)[1]]


def test_stress_draws_other_batches_and_caches_the_same():
    """Each pass hands over fewer requests at once, and prompts of a prefix after its owner."""
    sizes = []
    for floor in floor_passes(Profile.STRESS, made("stress")):
        names = [split_pass(probe.name)[1] for probe in floor]
        assert names == sorted(names, key=["crowd", "flood", "revisit"].index)
        sizes.append(max(len(probe.requests) for probe in floor))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes) > 1


@given(st.integers(1, 300))
def test_rows_are_those_that_no_cache_held(held):
    """Every token but the last of a request has a row, from the first that was computed."""
    (full,) = (one for probe in made() for one in probe.requests if one.name == "full")
    every = [("full", at) for at in range(len(full.prompt) + len(full.forced) - 1)]
    assert list(SentProbe(full, held).rows) == every[held:]


def test_a_small_vocabulary_keeps_every_row():
    """Instruments lose nothing."""
    assert kept_positions(1024, 448) == set(range(1024))


def test_a_real_vocabulary_keeps_a_bounded_spread():
    """First and last are kept, and never more than 32 MiB of float32."""
    for length in (33, 512, 4096):
        kept = kept_positions(length, 262144)
        assert (min(kept), max(kept), len(kept)) == (0, length - 1, 32)
    assert kept_positions(32, 262144) == set(range(32))


@pytest.mark.parametrize("max_model_len", [0, 1, 4])
def test_no_room_is_an_error(max_model_len):
    """A context that holds no probe is refused, not probed with nothing."""
    with pytest.raises(ValueError, match="no room"):
        made(max_model_len=max_model_len)


def test_parity_prompts_share_no_prefix():
    """Prompts are drawn apart, so that no cache can make one probe of two."""
    probes = made()
    starts = [one.prompt[:3] for probe in probes for one in probe.requests if len(one.prompt) > 2]
    assert len(set(starts)) == len(starts)


@pytest.mark.parametrize("profile", ["parity", "stress"])
def test_a_probe_repeats_itself_where_tokens_are_drafted(profile):
    """A drafter that looks back finds what comes next, but for one id; other engines lack it."""
    drafting = replace(settings(profile), engine_args=(("speculative_config", "{}"),))
    plain = {one.name for probe in made(profile) for one in probe.requests}
    (extra,) = (
        one
        for probe in probe_set(drafting, BLOCK)
        for one in probe.requests
        if one.name not in plain
    )
    ids = extra.prompt + extra.forced
    period = next(n for n in range(1, len(ids)) if ids[:n] == ids[n : 2 * n])
    breaks = [at for at in range(period, len(ids)) if ids[at] != ids[at - period]]
    assert breaks[0] >= len(extra.prompt)
    assert breaks == [breaks[0], breaks[0] + period]
    assert len(extra.forced) > breaks[0] - len(extra.prompt) + 1, "and repeats itself again"


def test_parity_has_prompts_that_begin_alike_if_a_prefix_cache_was_asked_for():
    """Without them nothing would come from the cache: of the longest, blocks do."""
    caching = replace(settings(), engine_args=(("enable_prefix_caching", "true"),))
    sent = [one for probe in probe_set(caching, BLOCK) for one in probe.requests]
    prompts = [one.prompt for one in sent]
    again = [one for one in sent if one.name.startswith("revisit/")]
    assert any(len(one.prompt) > 2 * BLOCK for one in again)
    for one in again:
        earlier = prompts[: sent.index(one)]
        assert any(one.prompt[:-1] == prompt[: len(one.prompt) - 1] for prompt in earlier)
    assert not any(one.name.startswith("revisit/") for probe in made() for one in probe.requests)


def test_a_floor_pass_caches_what_the_first_pass_does():
    """Each prompt finds in the cache what it found; else its rows would come in other batches."""
    caching = replace(settings(), engine_args=(("enable_prefix_caching", "true"),))
    first = probe_set(caching, BLOCK)
    (floor,) = floor_passes(Profile.PARITY, first)
    found = []
    for probes in (first, floor):
        earlier, cached = set(), {}
        for one in (one for probe in probes for one in probe.requests):
            cached[split_pass(one.name)[1]] = one.prompt[:BLOCK] in earlier
            earlier.add(one.prompt[:BLOCK])
        found.append(cached)
    assert found[0] == found[1]
    assert any(found[0].values())


def test_aborted_requests_fit_and_come_in_two_parts():
    """One part decodes while the other is in prefill; names do not meet those of probes."""
    first, second = aborted_requests(settings())
    requests = [*first.requests, *second.requests]
    assert all(len(one.prompt) + len(one.forced) <= 512 for one in requests)
    names = {one.name for one in requests}
    assert len(names) == len(requests)
    assert not names & {one.name for probe in made() for one in probe.requests}


@pytest.mark.parametrize("profile", Profile)
def test_images_come_alone_in_pairs_and_beside_text(profile):
    """Where they are asked for, and in no other run; the sensitivity probe has one too."""
    settings = EngineSettings(pp=1, profile=profile, vocab_size=448, images=True)
    seen = probe_set(settings, 16)
    images = {one.name: one.images for probe in seen for one in probe.requests if one.images}
    assert images == {
        "image": 1,
        "images": 2,
        "image+window": 1,
        "image-batch/1": 1,
        "image-batch/2": 2,
    }
    (batch,) = [probe for probe in seen for one in probe.requests if one.name == "image-batch/0"]
    assert {"image-batch/0", "image-batch/1", "image-batch/2"} <= {
        one.name for one in batch.requests
    }
    assert sensitivity_request(settings).images == 1
    without = replace(settings, images=False)
    assert sensitivity_request(without).images == 0
    assert not any(one.images for probe in probe_set(without, 16) for one in probe.requests)
