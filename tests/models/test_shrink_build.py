"""Building a tiny model: a checkpoint that repeats itself, and replaces only its kind."""

import json

import pytest
from click.testing import CliRunner
from families import family

from harness.cli.model import model as model_command
from harness.errors import BadInputError
from harness.models.checkpoint import content_digest, resolve_model
from harness.models.config import Decoder, read_config
from harness.models.instruments import CARD, read_card
from harness.models.shrink import find_config, shrink

pytestmark = pytest.mark.vllm  # needs torch and transformers


@pytest.fixture(autouse=True)
def _torch():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def ple(tmp_path_factory):
    """Build the family with the most parts: per-layer inputs, shared KV, two head sizes."""
    pytest.importorskip("transformers")
    return shrink(family("gemma4"), tmp_path_factory.mktemp("shrunk") / "gemma4")


def test_a_shrunk_model_is_a_checkpoint_like_any_other(ple):
    """Config, weights, tokenizer and card; the harness resolves it, and it is no instrument."""
    source = resolve_model(str(ple))
    assert source.config["architectures"] == ["Gemma4ForCausalLM"]
    assert not source.is_instrument
    assert (ple / "tokenizer.json").is_file()
    assert read_card(ple)["kind"] == "random"


def test_shared_layers_carry_what_vllm_asks_for(ple):
    """Layers of the KV-shared tail have the key and value weights that transformers leaves out."""
    from safetensors import safe_open

    with safe_open(ple / "model.safetensors", "pt") as file:
        names = set(file.keys())
    for layer in (8, 9):
        assert f"model.layers.{layer}.self_attn.k_norm.weight" in names
        assert f"model.layers.{layer}.self_attn.v_proj.weight" in names


def test_weights_follow_from_the_seed_and_their_names(tmp_path):
    """One seed gives one set of files; equal shapes are not equal weights."""
    from safetensors.torch import load_file

    config = family("llama")
    first, again = shrink(config, tmp_path / "a"), shrink(config, tmp_path / "b")
    assert content_digest(first) == content_digest(again)
    other = shrink(config, tmp_path / "b", seed=1)
    weights, others = (load_file(path / "model.safetensors") for path in (first, other))
    name = "model.layers.{}.self_attn.q_proj.weight".format
    assert not weights[name(0)].equal(others[name(0)])
    assert not weights[name(0)].equal(weights[name(1)])
    norm = weights["model.layers.3.input_layernorm.weight"].float()
    assert 0.8 < norm.mean() < 1.2
    assert norm.std() > 0.1


def test_biases_are_not_zero(tmp_path):
    """A bias of zero could be lost without a trace."""
    from safetensors.torch import load_file

    weights = load_file(shrink(family("qwen2"), tmp_path / "q") / "model.safetensors")
    biases = [tensor for name, tensor in weights.items() if name.endswith("bias")]
    assert biases
    assert all(tensor.float().abs().mean() > 0.05 for tensor in biases)


def test_what_transformers_cannot_build_is_bad_input(tmp_path):
    """One error, with the type; nothing half-made."""
    config = {"model_type": "no_such_model", "num_hidden_layers": 4}
    with pytest.raises(BadInputError, match="no_such_model"):
        shrink(config, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    """Only a shrunk model is replaced, not even an instrument."""
    (tmp_path / CARD).write_text(json.dumps({"name": "ple"}))
    with pytest.raises(BadInputError, match="holds no shrunk model"):
        shrink(family("llama"), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [CARD]


def test_the_command_says_what_it_made(tmp_path):
    """The line says what was made."""
    out, config = tmp_path / "tiny", tmp_path / "config.json"
    config.write_text(json.dumps(family("llama")))
    result = CliRunner().invoke(
        model_command, ["shrink", str(config), str(out)], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "LlamaForCausalLM, shrunk; 8 layers" in result.output
    assert find_config(str(out))["model_type"] == "llama"


@pytest.mark.parametrize("name", ["GPT2Config", "NemotronConfig", "NemotronHConfig"])
def test_what_transformers_saves_by_default_can_be_shrunk(tmp_path, name):
    """Sizes by other names, empty numbers, and layers named one by one."""
    import transformers

    getattr(transformers, name)().save_pretrained(tmp_path / "config")
    result = CliRunner().invoke(
        model_command,
        ["shrink", str(tmp_path / "config"), str(tmp_path / "out")],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    layers = Decoder.of(find_config(str(tmp_path / "out"))).layers
    assert f"; {layers} layers, " in result.output


def test_multipliers_that_the_class_adds_stay_away_from_one_too(tmp_path):
    """Falcon-H1's tiny config names none of its own."""
    config = read_config(shrink(family("falcon_h1"), tmp_path / "f"))
    names = ("embedding_multiplier", "lm_head_multiplier", "key_multiplier")
    assert 1.0 not in [config[name] for name in names]


def test_an_architecture_of_the_registry_needs_no_file():
    """By the class that transformers or vLLM has for it, with what published configs add."""
    config = find_config("HunYuanDenseV1ForCausalLM")
    assert config["architectures"] == ["HunYuanDenseV1ForCausalLM"]
    assert config["use_qk_norm"] is True


def test_an_architecture_that_gives_no_text_is_refused_by_the_registry():
    """BERT in a second, by what it is; it was built, and blamed on the seed."""
    with pytest.raises(BadInputError, match="BertModel is an embedding model"):
        find_config("BertModel")


def test_a_name_that_means_nothing_is_bad_input():
    """Neither a file nor a family nor an architecture nor a hub id."""
    with pytest.raises(BadInputError, match="no default configuration"):
        find_config("lama")
    for path in ("gone.json", "./gone", "/no/such/folder"):
        with pytest.raises(BadInputError, match="does not exist; give a config"):
            find_config(path)
