"""What stands for an architecture in a census, and the reasons why nothing does."""

import pytest
from families import family

from harness.models.class_defaults import ClassDefault
from harness.models.partition import default_split
from harness.models.shrink_plan import corrections
from harness.models.stand_in import Reason, stand_in, uneven_split

DECODER = {
    "model_type": "x",
    "num_hidden_layers": 32,
    "num_attention_heads": 8,
    "vocab_size": 50000,
}


@pytest.mark.parametrize(
    ("default", "reason"),
    [
        (None, Reason.NO_PP),
        (ClassDefault(reason="neither has it"), Reason.NO_CONFIG),
        (ClassDefault(DECODER | {"is_encoder_decoder": True}, "a"), Reason.ENCODER),
        (ClassDefault({"model_type": "w", "text_config": {}}, "a"), Reason.NOT_SHRUNK),
        (ClassDefault({"model_type": "x"}, "a"), Reason.NOT_SHRUNK),
        (ClassDefault({"model_type": "x", "num_hidden_layers": 4}, "a"), Reason.NOT_SHRUNK),
    ],
)
def test_each_architecture_without_a_stand_in_has_one_reason(default, reason):
    """A row never comes without an answer, nor with a guess."""
    each = stand_in("XForCausalLM", default)
    assert (each.config, each.reason) == (None, reason)


def test_a_decoder_is_shrunk():
    """The config that runs is tiny and keeps its type."""
    each = stand_in("XForCausalLM", ClassDefault(DECODER, "transformers's XConfig"))
    assert each.reason is None
    assert each.config["num_hidden_layers"] < DECODER["num_hidden_layers"]
    assert each.config["model_type"] == "x"


def test_what_wraps_a_decoder_keeps_its_other_parts():
    """The decoder that it wraps is shrunk, and the wrapper runs."""
    config = {"model_type": "w", "text_config": DECODER, "vision_config": {"hidden_size": 1152}}
    each = stand_in("W", ClassDefault(config, "w's config"), is_multimodal=True)
    assert each.is_multimodal
    assert each.config["text_config"]["num_hidden_layers"] < DECODER["num_hidden_layers"]
    assert each.config["vision_config"] == config["vision_config"]


def test_what_has_no_kernels_for_float32_runs_in_bfloat16():
    """Latent attention by its key; other models where the table of corrections says so."""

    def dtype(**keys):
        return stand_in("X", ClassDefault(DECODER | keys, "x's config")).dtype

    assert dtype() == "float32"
    assert dtype(kv_lora_rank=512) == "bfloat16"
    assert dtype(model_type="gpt_oss") == corrections()["gpt_oss"]["dtype"]


def test_an_even_split_over_three_stages_is_made_uneven():
    """A layer counted from the wrong end shows only where stages differ."""
    nine = {"num_hidden_layers": 9}
    assert uneven_split(nine, 3) == (4, 3, 2)
    assert sum(uneven_split(nine, 3)) == 9
    eight = {"num_hidden_layers": 8}
    assert len(set(default_split(8, 3))) > 1
    assert uneven_split(eight, 3) is None, "vLLM's own is uneven"
    assert uneven_split({"num_hidden_layers": 3}, 3) is None, "the last stage would have no layer"


def test_a_split_that_parts_a_cache_is_not_asked_for():
    """Where layers share caches the planner finds the legal split."""
    config = family("gemma4") | {"num_hidden_layers": 9, "num_kv_shared_layers": 6}
    config["layer_types"] = ["full_attention"] * 9
    assert uneven_split(config, 3) is None
