"""Caches fit their device, and the peak of a rank is predicted from the config."""

import dataclasses

import pytest

import harness.plan.cost as module
from harness.engine.settings import MAX_SEQUENCES, Device
from harness.models.size import embedding_bytes, kv_bytes, kv_share, step_bytes
from harness.plan.cell import Load
from harness.plan.cost import cache_tokens, expected_bytes, rank_bytes

GIB = 2**30
# SmolLM2-135M, as its config describes it; 134.5 million parameters, embedding and head are one.
SMOLLM2 = {
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "vocab_size": 49152,
}
LENGTH, FLOAT32 = 4096, 4
WEIGHTS = 538_060_000


def tokens(**changes):
    settings = {
        "sequences": MAX_SEQUENCES,
        "token_bytes": kv_bytes(SMOLLM2, 1, FLOAT32),
        "weight_bytes": WEIGHTS,
        "device": Device.CPU,
        "share": 1,
    }
    return cache_tokens(LENGTH, **settings | changes)


def test_a_small_model_holds_all_requests_at_full_length():
    """What fits is not made smaller."""
    assert tokens(token_bytes=100) == (MAX_SEQUENCES + 1) * LENGTH


def test_a_cache_fits_its_device(monkeypatch):
    """A larger model gets fewer tokens, never fewer than two requests; GPUs give what they have."""
    assert tokens() * kv_bytes(SMOLLM2, 1, FLOAT32) <= 2 * GIB
    assert tokens(token_bytes=GIB) == 2 * LENGTH
    monkeypatch.setattr(module, "device_bytes", lambda _device: 80 * GIB)
    alone = tokens(token_bytes=GIB // 1024, weight_bytes=40 * GIB, device=Device.CUDA)
    assert 20 * 1024 < alone < 40 * 1024
    shared = tokens(token_bytes=GIB // 1024, weight_bytes=10 * GIB, device=Device.CUDA, share=2)
    assert shared < alone


@pytest.mark.parametrize("pp", [1, 2, 4])
def test_a_small_checkpoint_takes_less_than_6_gib_a_rank(cell, pp):
    """SmolLM2-135M in float32 with 5 examples a question; two such cells fit into 24 GiB."""
    load = Load(
        weight_bytes=WEIGHTS,
        kv_bytes=kv_bytes(SMOLLM2, tokens(), FLOAT32) // pp,
        embedding_bytes=embedding_bytes(SMOLLM2, FLOAT32),
        step_bytes=step_bytes(SMOLLM2, 8192, FLOAT32),
    )
    real = dataclasses.replace(cell, pp=pp, load=load, vocab_size=SMOLLM2["vocab_size"])
    assert rank_bytes(real) < 6 * GIB
    assert 2 * expected_bytes(real) < 24 * GIB


# Gemma 3 270M, whose vocabulary is most of it; its ranks in GiB, as measured in float32
# (results/2026-11-27-cpu-real; its tokenizer.json has 33 MB).
GEMMA3 = {
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "vocab_size": 262144,
    "layer_types": [*["sliding_attention"] * 5, "full_attention"] * 3,
    "sliding_window": 512,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize(
    ("split", "measured"), [([18], 5.4), ([9, 9], 4.7), ([5, 5, 4, 4], 3.7)], ids=["1", "2", "4"]
)
def test_a_large_vocabulary_is_predicted_with_its_packed_copies(cell, split, measured):
    """No less than the fullest rank takes, and no more than a fifth above it."""
    load = Load(
        weight_bytes=1_072_400_000,
        kv_bytes=int(kv_bytes(GEMMA3, 33 * 1035, FLOAT32) * kv_share(GEMMA3, split)),
        embedding_bytes=embedding_bytes(GEMMA3, FLOAT32),
        step_bytes=step_bytes(GEMMA3, 4 * 1035, FLOAT32),
        tokenizer_bytes=18 * 33_250_876,
    )
    real = dataclasses.replace(
        cell,
        pp=len(split),
        load=load,
        vocab_size=GEMMA3["vocab_size"],
        max_sequences=MAX_SEQUENCES,
    )
    assert measured < rank_bytes(real) / GIB < 1.2 * measured


def test_a_gpu_keeps_no_packed_copies(cell):
    """There the embedding counts once on the stage that holds it."""
    load = Load(weight_bytes=2 * GIB, embedding_bytes=GIB)
    alone = Load(weight_bytes=2 * GIB)
    on = {
        device: rank_bytes(dataclasses.replace(cell, device=device, load=load))
        - rank_bytes(dataclasses.replace(cell, device=device, load=alone))
        for device in Device
    }
    assert on[Device.CPU] - on[Device.CUDA] == 2 * GIB


def test_a_tokenizer_is_held_once_and_counted_in_each_rank(cell):
    """The ranks are forked from the process that loaded it: their resident memory has its pages."""
    small = dataclasses.replace(cell, pp=4, load=Load(weight_bytes=GIB))
    large = dataclasses.replace(small, load=Load(weight_bytes=GIB, tokenizer_bytes=GIB))
    assert rank_bytes(large) == rank_bytes(small) + GIB
    assert expected_bytes(large) == pytest.approx(expected_bytes(small) + GIB, abs=8)
