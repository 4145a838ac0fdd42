"""The shipped checkpoints, looked at from outside: no torch."""

import json
import struct

import pytest

from harness.errors import BadInputError
from harness.models.checkpoint import resolve_model
from harness.models.config import Decoder, text_config
from harness.models.instruments import instrument_names, instrument_path, problems_path
from harness.models.partition import plan_partition
from tools.instruments.build import MAXIMUM_BYTES
from tools.instruments.problems import make_problems, prompt_of
from tools.instruments.recipes import PROBLEM_COUNT, PROBLEM_SEED, RECIPES, TRAINED

every_instrument = pytest.mark.parametrize("name", instrument_names())
trained_instrument = pytest.mark.parametrize("name", tuple(TRAINED))


def header_of(folder):
    """Names, dtypes and shapes of the tensors in a safetensors file."""
    with (folder / "model.safetensors").open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return header


def test_the_names_are_the_recipes():
    """Four instruments, each with its files."""
    assert instrument_names() == tuple(RECIPES) == ("dense", "ple", "moe", "mm")
    assert all(instrument_path(name).is_dir() for name in instrument_names())
    assert problems_path().is_file()


def test_an_unknown_name_lists_the_known():
    """A typo is answered with the choices."""
    with pytest.raises(BadInputError, match="dense, mm, moe, ple"):
        instrument_path("pel")


@every_instrument
def test_a_checkpoint_is_small_and_plain(name):
    """Under the size limit, one safetensors file, no pickle and no code."""
    folder = instrument_path(name)
    assert (folder / "model.safetensors").stat().st_size < MAXIMUM_BYTES
    assert {file.suffix for file in folder.iterdir()} == {".json", ".safetensors"}
    assert resolve_model(name).is_instrument


@every_instrument
def test_the_shape_is_worth_a_pipeline(name):
    """Middle ranks of two layers at PP=4, both kinds of attention, tied, with softcap."""
    config = resolve_model(name).config
    text = text_config(config)
    assert text["tie_word_embeddings"] is True
    assert text["final_logit_softcapping"] == 30.0
    assert set(Decoder.of(config).kinds) == {"sliding_attention", "full_attention"}
    for pp in (2, 4):
        plan = plan_partition(config, pp)
        assert plan.illegal_reason is None
        assert min(plan.layers_per_rank[1:-1], default=2) >= 2


@trained_instrument
def test_a_trained_one_has_layers_for_every_rank(name):
    """At least two a rank at PP=4, in the class of the decoder itself."""
    config = resolve_model(name).config
    assert config["architectures"] == ["Gemma4ForCausalLM"]
    assert min(plan_partition(config, 4).layers_per_rank) >= 2


def test_mm_is_what_published_checkpoints_name():
    """The multimodal class around a decoder with PLE; small, and no weight is idle."""
    source = resolve_model("mm")
    assert source.config["architectures"] == ["Gemma4ForConditionalGeneration"]
    assert text_config(source.config)["hidden_size_per_layer_input"] > 0
    assert {"text_config", "vision_config"} <= source.config.keys()
    assert (source.path / "model.safetensors").stat().st_size < 300_000
    names = header_of(source.path).keys()
    assert any(name.startswith("model.language_model.layers.") for name in names)
    assert any(name.startswith("model.vision_tower.") for name in names)
    card = json.loads((source.path / "instrument.json").read_text(encoding="utf-8"))
    assert card["measured"]["smallest_effect"] > 0.1
    assert card["shape"] == dict(RECIPES["mm"].shape)


@trained_instrument
def test_the_card_states_what_was_measured(name):
    """The card is the recipe's, and the stated accuracy keeps the promise."""
    card = json.loads((instrument_path(name) / "instrument.json").read_text(encoding="utf-8"))
    recipe = RECIPES[name]
    assert (card["seed"], card["steps"]) == (recipe.seed, recipe.steps)
    assert card["shape"] == dict(recipe.shape)
    assert card["measured"]["accuracy"] >= 0.95
    assert card["measured"]["accuracy_bfloat16"] >= 0.95


def test_ple_needs_ple():
    """Without PLE in the later half the instrument is mostly wrong."""
    card = json.loads((instrument_path("ple") / "instrument.json").read_text(encoding="utf-8"))
    assert card["measured"]["accuracy_without_ple_in_later_half"] <= 0.5


def test_ple_needs_a_layer_split_of_its_own_at_pp4():
    """The planner has work to do: vLLM's own layer split parts a layer from its source."""
    config = resolve_model("ple").config
    assert Decoder.of(config).kv_sources == {8: 7, 9: 6}
    assert plan_partition(config, 2).is_default
    assert plan_partition(config, 4).layers_per_rank == (2, 2, 2, 4)


def test_shared_layers_carry_the_tensors_that_vllm_asks_for():
    """Transformers saves none for them, and vLLM refuses the checkpoint."""
    names = header_of(instrument_path("ple")).keys()
    for layer in (8, 9):
        for part in ("k_proj", "v_proj", "k_norm"):
            assert f"model.layers.{layer}.self_attn.{part}.weight" in names


@every_instrument
def test_prompts_exceed_the_sliding_window(name):
    """Every bundled prompt is longer than the window, so that the window matters."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(instrument_path(name) / "tokenizer.json"))
    window = text_config(resolve_model(name).config)["sliding_window"]
    for problem in make_problems(PROBLEM_COUNT, PROBLEM_SEED):
        assert len(tokenizer.encode(prompt_of(problem.question)).ids) > window


@every_instrument
def test_any_text_survives_the_tokenizer(name):
    """Real problems are spelled out, never unknown."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(instrument_path(name) / "tokenizer.json"))
    text = "Zoë paid €3.50 for 1,024 \u2603 kites?\n\t#### -7"
    ids = tokenizer.encode(text, add_special_tokens=True).ids
    assert ids[0] == text_config(resolve_model(name).config)["bos_token_id"]
    assert tokenizer.decode(ids) == text
