"""The shipped checkpoints, looked at from outside: no torch."""

import json
import struct

import pytest

from harness.errors import BadInputError
from harness.instruments import instrument_names, instrument_path, problems_path
from harness.instruments.build import MAXIMUM_BYTES
from harness.instruments.problems import make_problems, prompt_of
from harness.instruments.recipes import PROBLEM_COUNT, PROBLEM_SEED, RECIPES
from harness.source.model import resolve_model
from harness.source.partition import kv_sources, layer_kinds, plan_partition

every_instrument = pytest.mark.parametrize("name", instrument_names())


def header_of(folder):
    """Names, dtypes and shapes of the tensors in a safetensors file."""
    with (folder / "model.safetensors").open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return header


def test_the_names_are_the_recipes():
    """Three instruments, each with its files."""
    assert instrument_names() == ("dense", "ple", "moe")
    assert all(instrument_path(name).is_dir() for name in instrument_names())
    assert problems_path().is_file()


def test_an_unknown_name_lists_the_known():
    """A typo is answered with the choices."""
    with pytest.raises(BadInputError, match="dense, moe, ple"):
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
    """At least two layers a rank at PP=4, both kinds of attention, tied, with softcap."""
    config = resolve_model(name).config
    assert config["architectures"] == ["Gemma4ForCausalLM"]
    assert config["tie_word_embeddings"] is True
    assert config["final_logit_softcapping"] == 30.0
    assert set(layer_kinds(config)) == {"sliding_attention", "full_attention"}
    for pp in (2, 4):
        plan = plan_partition(config, pp)
        assert plan.illegal_reason is None
        assert min(plan.layers_per_rank) >= 2


@every_instrument
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


def test_ple_needs_a_cut_of_its_own_at_pp4():
    """The planner has something to work out: vLLM's own cut parts a layer from its source."""
    config = resolve_model("ple").config
    assert kv_sources(config) == {8: 7, 9: 6}
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
    window = resolve_model(name).config["sliding_window"]
    for problem in make_problems(PROBLEM_COUNT, PROBLEM_SEED):
        assert len(tokenizer.encode(prompt_of(problem.question)).ids) > window


@every_instrument
def test_any_text_survives_the_tokenizer(name):
    """Real problems are spelled out, never unknown."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(instrument_path(name) / "tokenizer.json"))
    text = "Zoë paid €3.50 for 1,024 \u2603 kites?\n\t#### -7"
    ids = tokenizer.encode(text, add_special_tokens=True).ids
    config = resolve_model(name).config
    assert ids[0] == config["bos_token_id"]
    assert tokenizer.decode(ids) == text
