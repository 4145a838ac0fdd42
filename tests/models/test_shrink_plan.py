"""Planning a tiny model from a config: pure, no torch."""

import pytest
from families import TINY, family

from harness.errors import BadInputError
from harness.models.config import Decoder
from harness.models.partition import plan_partition
from harness.models.shrink_plan import (
    MIN_LAYERS,
    corrected,
    corrections,
    kept_layers,
    shrunk_config,
    shrunk_wrapper,
)

SLIDING, FULL = "sliding_attention", "full_attention"


def gemma4(layers, every, **more):
    """A config in the shape of a published one: every n-th layer full, the last too."""
    kinds = [FULL if (i + 1) % every == 0 else SLIDING for i in range(layers)]
    return {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "vision_config": {"hidden_size": 768},
        "image_token_id": 258880,
        "text_config": {
            "model_type": "gemma4_text",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": layers,
            "layer_types": kinds,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "global_head_dim": 512,
            "sliding_window": 512,
            "vocab_size": 262144,
            "vocab_size_per_layer_input": 262144,
            "hidden_size_per_layer_input": 256,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": True,
            **more,
        },
    }


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_config_is_as_small_as_it_gets(name):
    """Shrinking a default again changes nothing: both follow the same limits."""
    config = family(name)
    assert shrunk_config(config) == config


def test_the_text_part_of_a_multimodal_config_is_taken():
    """Where it is asked for; its architecture is found when it is built, media tokens go."""
    config = gemma4(42, 6, num_kv_shared_layers=18, image_token_id=258880)
    plan = shrunk_config(config, text_only=True)
    assert plan["model_type"] == "gemma4_text"
    assert not {"architectures", "vision_config", "image_token_id"} & plan.keys()
    assert (plan["hidden_size"], plan["head_dim"], plan["global_head_dim"]) == (128, 32, 64)
    assert plan["hidden_size_per_layer_input"] == 16
    assert plan["vocab_size"] == plan["vocab_size_per_layer_input"] == 448
    assert (plan["num_attention_heads"], plan["num_key_value_heads"]) == (4, 2)
    assert plan["tie_word_embeddings"] is True


@pytest.mark.parametrize(("layers", "every", "shared"), [(35, 5, 20), (42, 6, 18), (30, 6, 0)])
def test_the_layer_pattern_and_the_shared_tail_are_kept(layers, every, shared):
    """Whole periods, a source for each shared layer, and a legal layer split at PP=2 and 4."""
    plan = shrunk_config(gemma4(layers, every, num_kv_shared_layers=shared), text_only=True)
    kinds = plan["layer_types"]
    assert 8 <= plan["num_hidden_layers"] == len(kinds) <= 12
    assert [kind == FULL for kind in kinds] == [(i + 1) % every == 0 for i in range(len(kinds))]
    assert bool(plan["num_kv_shared_layers"]) is bool(shared)
    assert len(Decoder.of(plan).kv_sources) == plan["num_kv_shared_layers"]
    assert all(plan_partition(plan, pp).illegal_reason is None for pp in (2, 4))


def test_a_pattern_that_never_repeats_keeps_each_kind_and_its_order():
    """A kind that first comes late in the model is not lost."""
    kinds = ["mamba"] * 17 + ["attention"] + ["mamba"] * 3 + ["mlp"]
    config = {"model_type": "x", "num_hidden_layers": 22, "layers_block_type": kinds}
    layers = kept_layers(config)
    assert len(layers) == 12
    assert list(layers) == sorted(layers)
    assert {kinds[layer] for layer in layers} == {"mamba", "attention", "mlp"}
    assert Decoder.of(shrunk_config(config)).kinds == tuple(kinds[layer] for layer in layers)


def test_a_pattern_in_a_string_is_cut_with_the_layers():
    """Nemotron writes one letter a layer."""
    pattern = "M-M-M-MM-M-M*-M-M-M"
    config = {"model_type": "x", "num_hidden_layers": 19, "hybrid_override_pattern": pattern}
    plan = shrunk_config(config)
    assert len(plan["hybrid_override_pattern"]) == plan["num_hidden_layers"] == 12
    assert set(plan["hybrid_override_pattern"]) == {"M", "-", "*"}


def test_a_period_given_as_a_number_is_kept_whole():
    """A config may name the pattern by its period alone."""
    config = {"model_type": "x", "num_hidden_layers": 34, "sliding_window_pattern": 6}
    assert shrunk_config(config)["num_hidden_layers"] == 12


def test_experts_stay_and_their_choice_stays_valid():
    """Fewer experts, fewer of them a token, dense layers still where the original has them."""
    plan = shrunk_config(
        {
            "model_type": "x", "num_hidden_layers": 48, "num_experts": 128,
            "num_experts_per_tok": 8, "moe_intermediate_size": 768, "mlp_only_layers": [0, 5, 40],
        }
    )  # fmt: skip
    assert (plan["num_experts"], plan["num_experts_per_tok"]) == (8, 2)
    assert plan["mlp_only_layers"] == [0, 5]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "kept"),
    [(32, 32, (4, 4)), (32, 8, (4, 2)), (8, 1, (4, 1)), (2, 2, (2, 2))],
)
def test_attention_stays_grouped_as_it_was(heads, kv_heads, kept):
    """Multi-head, grouped and multi-query attention are different code."""
    plan = shrunk_config(
        {
            "model_type": "x", "num_hidden_layers": 16, "hidden_size": 4096,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        }
    )  # fmt: skip
    assert (plan["num_attention_heads"], plan["num_key_value_heads"]) == kept
    assert plan["hidden_size"] % plan["num_attention_heads"] == 0


def test_state_space_heads_fill_their_width():
    """The assertions of transformers on falcon_h1 hold after shrinking."""
    plan = shrunk_config(
        {
            "model_type": "falcon_h1", "num_hidden_layers": 24, "hidden_size": 2048,
            "mamba_d_ssm": 3072, "mamba_n_heads": 48, "mamba_d_head": 64, "mamba_d_state": 256,
        }
    )  # fmt: skip
    assert plan["mamba_n_heads"] * plan["mamba_d_head"] == plan["mamba_d_ssm"] == 128


def test_latent_attention_keeps_the_sizes_that_kernels_take():
    """A kernel of 576 refuses any other head; values are small only where a head is plain."""
    latent = {
        "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
    }  # fmt: skip
    model = {"model_type": "x", "num_hidden_layers": 30, "num_attention_heads": 64}
    tiny = shrunk_config(model | latent | {"q_lora_rank": 1536})
    assert latent.items() <= tiny.items()
    assert tiny["q_lora_rank"] < 1536
    assert shrunk_config(model | {"v_head_dim": 128})["v_head_dim"] < 128


def test_rotary_factors_fit_the_smaller_head():
    """One factor a frequency, and the original length shrinks with the longest."""
    rope = {
        "rope_type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48,
        "original_max_position_embeddings": 4096,
    }  # fmt: skip
    plan = shrunk_config(
        {
            "model_type": "phi3", "num_hidden_layers": 32, "hidden_size": 3072,
            "num_attention_heads": 32, "max_position_embeddings": 131072, "rope_scaling": rope,
        }
    )  # fmt: skip
    shrunk = plan["rope_scaling"]
    assert len(shrunk["short_factor"]) == len(shrunk["long_factor"]) == 16
    assert shrunk["original_max_position_embeddings"] == 128
    assert len(rope["short_factor"]) == 48, "the caller's config is not touched"


def test_a_wrapper_is_never_replaced_by_its_decoder_unasked():
    """A stand-in that runs where the whole does not would hide the fault."""
    config = {
        "architectures": ["VoxtralForConditionalGeneration"], "model_type": "voxtral",
        "audio_config": {}, "text_config": {"model_type": "llama", "num_hidden_layers": 4},
    }  # fmt: skip
    with pytest.raises(BadInputError, match=r"Voxtral.* wraps a decoder, llama.*--text-only"):
        shrunk_config(config)
    assert shrunk_config(config, text_only=True)["model_type"] == "llama"


@pytest.mark.parametrize("path", [("text_config",), ("thinker_config", "text_config")])
def test_a_wrapper_keeps_its_other_parts_beside_a_tiny_decoder(path):
    """The decoder is as tiny as alone, wherever it is nested; encoders keep their widths."""
    decoder = {"model_type": "d", "num_hidden_layers": 40, "hidden_size": 4096, "vocab_size": 9999}
    vision = {"hidden_size": 1152, "num_hidden_layers": 27}
    own = {"model_type": "w", "architectures": ["WForConditionalGeneration"], "image_token_id": 9}

    def wrapped(text, layers):
        for key in reversed(path):
            text = {key: text, "vision_config": vision | {"num_hidden_layers": layers}}
        return own | text

    assert shrunk_wrapper(wrapped(decoder, 27)) == wrapped(shrunk_config(decoder), 2)


def test_features_of_a_tower_fit_on_the_first_of_four_stages():
    """A model refuses a split that parts the layers which add them (Qwen3-VL in vLLM 0.33.0)."""
    text = {"model_type": "llama", "num_hidden_layers": 36, "hidden_size": 4096}
    tower = {"deepstack_visual_indexes": [8, 16, 24], "depth": 27}
    config = {"model_type": "a_wrapper", "text_config": text, "vision_config": tower}
    assert len(kept_layers(config)) == 12
    assert len(kept_layers({**config, "vision_config": {}})) == MIN_LAYERS


def test_a_table_by_layer_numbers_is_cut_with_the_layers():
    """transformers lists layers with larger heads so; a number beyond the last is refused."""
    config = {
        "model_type": "x", "num_hidden_layers": 30, "num_attention_heads": 8, "hidden_size": 2304,
        "head_dim": 256, "layer_types": [*["sliding_attention"] * 5, "full_attention"] * 5,
        "per_layer_config": {f"{n:02}": {"head_dim": 512} for n in range(5, 30, 6)},
    }  # fmt: skip
    tiny = shrunk_config(config)
    full = [n for n, kind in enumerate(tiny["layer_types"]) if kind == "full_attention"]
    assert [int(number) for number in tiny["per_layer_config"]] == full
    assert {each["head_dim"] for each in tiny["per_layer_config"].values()} == {
        2 * tiny["head_dim"]
    }


def test_layers_named_one_by_one_are_counted():
    """Nemotron-H has a list of layers and no number of them."""
    kinds = ["mamba", "moe", "attention", "mlp"] * 5
    plan = shrunk_config({"model_type": "x", "layers_block_type": kinds, "num_attention_heads": 4})
    assert plan["layers_block_type"] == kinds[: Decoder.of(plan).layers]


def test_the_other_names_of_the_sizes_are_read():
    """GPT-2 and GPT-J: what is planned and weighed by them is not zero."""
    config = {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_inner": 3072, "n_positions": 1024}
    decoder = Decoder.of(config)
    assert (decoder.layers, decoder.hidden_size, decoder.num_attention_heads) == (12, 768, 12)
    assert (decoder.intermediate_size, decoder.max_position_embeddings) == (3072, 1024)


def test_no_number_of_key_value_heads_means_one_for_each_head():
    """Nemotron's default leaves it empty, which its own class cannot compute with."""
    plan = shrunk_config(
        {
            "model_type": "x", "num_hidden_layers": 8, "hidden_size": 512, "head_dim": None,
            "num_attention_heads": 8, "num_key_value_heads": None,
        }
    )  # fmt: skip
    assert plan["num_key_value_heads"] == plan["num_attention_heads"] == 4
    assert plan["head_dim"] == 32


@pytest.mark.parametrize("model_type", corrections())
def test_what_published_configs_have_is_added_and_never_overrides_a_choice(model_type):
    """Each correction names what it follows; a config that has the key keeps its value."""
    assert corrections()[model_type]["follows"].count("/") == 1
    keys = corrections()[model_type].get("keys", {})
    bare = {"model_type": model_type, "architectures": [model_type]}
    assert corrected(bare) == bare | keys
    chosen = {**bare, **dict.fromkeys(keys, 7)}
    assert corrected(chosen) == chosen
    assert corrected(chosen, is_default=True) == bare | keys


def test_parts_of_a_default_are_corrected_too():
    """A wrapper's default holds its decoder's; nobody has chosen either."""
    decoder = {"model_type": "step3_text", "moe_layers_enum": [4, 5]}
    wrapper = {"model_type": "w", "text_config": decoder}
    expected = corrected(decoder, is_default=True)
    assert expected["moe_layers_enum"] == corrections()["step3_text"]["keys"]["moe_layers_enum"]
    assert corrected(wrapper, is_default=True)["text_config"] == expected
    assert corrected(wrapper) == wrapper


def test_multipliers_stay_away_from_one():
    """A scale of 1.0 that a stage applies twice changes nothing; others are the model's own."""
    plan = shrunk_config(
        {
            "model_type": "x", "num_hidden_layers": 8, "embedding_multiplier": 1.0,
            "attention_multiplier": 1.0, "residual_multiplier": 0.22, "mlp_multipliers": [1.0, 0.5],
        }
    )  # fmt: skip
    assert plan["embedding_multiplier"] == 2.0
    assert 0 < plan["attention_multiplier"] < 1
    assert plan["residual_multiplier"] == 0.22
    assert plan["mlp_multipliers"] == [2.0, 0.5]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "bert", "num_hidden_layers": 4, "type_vocab_size": 2}, "an encoder"),
        ({"model_type": "t5", "num_layers": 4, "is_encoder_decoder": True}, "encoder beside"),
        ({"model_type": "x"}, "no number of layers"),
        ({"num_hidden_layers": 4}, "no model_type"),
        ({"model_type": "x", "num_hidden_layers": 4, "auto_map": {"AutoModel": "m.M"}}, "auto_map"),
    ],
)
def test_what_cannot_be_shrunk_is_refused(config, words):
    """A config without layers, without a type, or with code of its own is bad input."""
    with pytest.raises(BadInputError, match=words):
        shrunk_config(config)
