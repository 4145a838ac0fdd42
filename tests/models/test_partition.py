"""Layer splits: vLLM's own, the reasons why one is illegal, the legal one nearest to balanced."""

import itertools

import pytest

from harness.errors import BadInputError
from harness.models.config import Decoder
from harness.models.partition import (
    PARTITION_VARIABLE,
    balanced_split,
    default_split,
    illegal_reason,
    plan_partition,
)

SLIDING, FULL = "sliding_attention", "full_attention"


def kinds(layers, every):
    """Full attention at every nth layer and at the last, as the Gemma4 configs have it."""
    return [FULL if (i + 1) % every == 0 or i == layers - 1 else SLIDING for i in range(layers)]


def gemma4(layers, every, **keys):
    """Make a config of Gemma4's published shapes, nested as in the multimodal checkpoints."""
    text = {
        "num_hidden_layers": layers,
        "layer_types": kinds(layers, every),
        "head_dim": 256,
        "global_head_dim": 512,
        "hidden_activation": "gelu_pytorch_tanh",
    }
    return {"model_type": "gemma4", "text_config": text | keys}


E2B = gemma4(
    35, 5, num_kv_shared_layers=20, hidden_size=1536, intermediate_size=6144,
    num_attention_heads=8, num_key_value_heads=1, hidden_size_per_layer_input=256,
    use_double_wide_mlp=True,
)  # fmt: skip
E4B = gemma4(
    42, 6, num_kv_shared_layers=18, hidden_size=2560, intermediate_size=10240,
    num_attention_heads=8, num_key_value_heads=2, hidden_size_per_layer_input=256,
)  # fmt: skip
MOE_26B = gemma4(
    30, 6, hidden_size=2816, intermediate_size=2112, num_attention_heads=16,
    num_key_value_heads=8, num_global_key_value_heads=2, attention_k_eq_v=True,
    enable_moe_block=True, num_experts=128, top_k_experts=8, moe_intermediate_size=704,
)  # fmt: skip
DENSE_31B = gemma4(
    60, 6, hidden_size=5376, intermediate_size=21504, num_attention_heads=32,
    num_key_value_heads=16, num_global_key_value_heads=4, attention_k_eq_v=True,
)  # fmt: skip
PLAIN = {"num_hidden_layers": 10}


def shared_tail(layers, shared, types):
    """Make a bare config with a KV-shared tail."""
    return {"num_hidden_layers": layers, "num_kv_shared_layers": shared, "layer_types": types}


@pytest.mark.parametrize(
    ("layers", "pp", "split"),
    [(10, 1, (10,)), (10, 2, (5, 5)), (10, 4, (2, 3, 3, 2)), (11, 2, (6, 5)), (2, 4, (0, 1, 1, 0))],
)
def test_default_split_gives_what_is_left_over_to_late_ranks_but_the_last(layers, pp, split):
    """The split is vLLM's: even, and the last rank never takes an extra layer."""
    assert default_split(layers, pp) == split


@pytest.mark.vllm
def test_default_split_equals_vllms_own_function(monkeypatch):
    """For every size that anybody runs, the split equals vLLM's get_pp_indices."""
    monkeypatch.delenv("VLLM_PP_LAYER_PARTITION", raising=False)
    utils = pytest.importorskip("vllm.distributed.utils")
    for layers, pp in itertools.product(range(1, 101), range(1, 17)):
        spans = [utils.get_pp_indices(layers, rank, pp) for rank in range(pp)]
        assert default_split(layers, pp) == tuple(end - start for start, end in spans)


@pytest.mark.vllm
def test_the_printed_value_makes_vllm_split_as_planned(monkeypatch):
    """VLLM reads the plan's value of its variable as exactly the plan's ranks."""
    utils = pytest.importorskip("vllm.distributed.utils")
    plan = plan_partition(E4B, 4)
    monkeypatch.setenv(PARTITION_VARIABLE, plan.value)
    spans = [utils.get_pp_indices(42, rank, 4) for rank in range(4)]
    assert plan.layers_per_rank == tuple(end - start for start, end in spans)
    assert spans[0][0] == 0


@pytest.mark.parametrize(
    ("config", "pp", "default_is_legal", "split"),
    [
        (E2B, 2, False, (13, 22)),
        (E2B, 4, False, (4, 4, 5, 22)),
        (E4B, 2, True, (21, 21)),
        (E4B, 4, False, (7, 7, 8, 20)),
        (MOE_26B, 2, True, (15, 15)),
        (MOE_26B, 4, True, (7, 8, 8, 7)),
        (DENSE_31B, 2, True, (30, 30)),
        (DENSE_31B, 4, True, (15, 15, 15, 15)),
    ],
)
def test_published_gemma4_shapes(config, pp, default_is_legal, split):
    """E2B never runs at vLLM's own split, E4B at PP=2 only, the others always."""
    plan = plan_partition(config, pp)
    assert plan.illegal_reason is None
    assert plan.is_default is default_is_legal
    assert plan.layers_per_rank == split
    assert (illegal_reason(Decoder.of(config), plan.default_split, pp) is None) is default_is_legal


def test_kv_sources_are_the_last_layer_of_the_same_kind_before_the_tail():
    """Shared layers read the nearest earlier cache of their kind."""
    assert set(Decoder.of(E2B).kv_sources.values()) == {13, 14}
    assert set(Decoder.of(E4B).kv_sources.values()) == {22, 23}
    assert Decoder.of(E4B).kv_sources[41] == 23
    assert Decoder.of(E4B).kv_sources[24] == 22
    assert Decoder.of(DENSE_31B).kv_sources == {}


def test_an_illegal_split_names_layer_source_and_ranks():
    """The reason is concrete enough to act on."""
    reason = illegal_reason(Decoder.of(E4B), (10, 11, 11, 10), 4)
    assert reason == ("layer 32 (rank 3) shares the KV cache of layer 22, which is on rank 2")


def test_a_requested_split_is_kept_and_judged():
    """A request is never replaced, legal or not, and never the default unless it equals it."""
    plan = plan_partition(PLAIN, 2, (3, 7))
    assert (plan.layers_per_rank, plan.is_default, plan.illegal_reason) == ((3, 7), False, None)
    assert (PARTITION_VARIABLE, plan.value) == ("VLLM_PP_LAYER_PARTITION", "3,7")
    assert plan_partition(PLAIN, 2, (5, 5)).is_default
    assert plan_partition(E2B, 2, (18, 17)).illegal_reason is not None


@pytest.mark.parametrize(
    ("split", "part"),
    [((5, 4), "places 9 layers"), ((4, 3, 3), "names 3 ranks"), ((10, 0), "rank 1 without")],
)
def test_a_split_that_does_not_fit_says_what_is_wrong(split, part):
    """Wrong sum, wrong length and an empty rank are each told apart."""
    assert part in plan_partition(PLAIN, 2, split).illegal_reason


def test_more_ranks_than_layers_is_illegal():
    """There is no legal split, and the plan says so in place of proposing one."""
    plan = plan_partition({"num_hidden_layers": 3}, 4)
    assert "fewer than 4 ranks" in plan.illegal_reason
    assert plan.is_default


def test_a_model_without_a_legal_split_is_reported():
    """A tail that ties nearly all layers together leaves nothing to split."""
    config = shared_tail(6, 5, [FULL] * 6)
    plan = plan_partition(config, 2)
    assert plan.illegal_reason is not None
    assert plan.note == "no layer split over that many ranks is legal"


def test_balanced_split_is_the_best_of_all_legal_splits():
    """On small models the search agrees with trying every split."""
    for shared, types in itertools.product(range(5), ([FULL] * 9, kinds(9, 3), kinds(9, 2))):
        decoder = Decoder.of(shared_tail(9, shared, types))
        for pp in (1, 2, 3, 4):
            every = itertools.product(range(1, 10), repeat=pp)
            legal = [split for split in every if illegal_reason(decoder, split, pp) is None]
            default = default_split(9, pp)

            def badness(split, default=default):
                moved = sum(abs(a - b) for a, b in zip(split, default, strict=True))
                return sum(n * n for n in split), moved, split

            assert balanced_split(decoder, pp) == min(legal, key=badness, default=None)


def test_config_without_layers_is_bad_input():
    """A config of something else ends in one error."""
    with pytest.raises(BadInputError, match="no number of layers"):
        Decoder.of({"model_type": "vit"})


def test_pp_below_one_is_bad_input():
    """There is no pipeline of zero ranks."""
    with pytest.raises(BadInputError, match="at least one rank"):
        plan_partition(PLAIN, 0)


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 4, "num_kv_shared_layers": 2},
        shared_tail(4, 4, [FULL] * 4),
        shared_tail(4, 1, [SLIDING, SLIDING, SLIDING, FULL]),
        shared_tail(5, 1, [FULL] * 4),
    ],
)
def test_contradictory_sharing_is_bad_input(config):
    """A config that cannot be planned ends in one error, not in a guess."""
    with pytest.raises(BadInputError):
        plan_partition(config, 2)
