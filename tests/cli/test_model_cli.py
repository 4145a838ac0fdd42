"""The command `pp-harness model`, without training."""

import json

import pytest
from click.testing import CliRunner

from harness.cli.model import model
from harness.errors import BadInputError


def run(*arguments):
    """Run the command; its own errors come through."""
    return CliRunner().invoke(model, arguments, catch_exceptions=False)


def test_list_shows_every_instrument():
    """Each bundled instrument has its line."""
    result = run("list")
    assert result.exit_code == 0
    assert all(name in result.output for name in ("dense", "ple", "moe", "mm"))
    assert "not ability" in result.output


def test_partition_prints_the_variable_where_vllm_would_refuse():
    """The value can be copied into the environment."""
    result = run("partition", "ple", "--pp", "2,4")
    assert result.exit_code == 0
    assert result.output.count("VLLM_PP_LAYER_PARTITION=") == 1
    assert "VLLM_PP_LAYER_PARTITION=2,2,2,4" in result.output


def test_partition_judges_a_given_layer_split():
    """An illegal layer split ends with status 1 and its reason."""
    result = run("partition", "ple", "--pp", "2", "--split", "8,2")
    assert result.exit_code == 1
    assert "ILLEGAL: layer 8 (rank 1) shares the KV cache of layer 7" in result.output


def test_partition_says_what_it_does_not_know(tmp_path):
    """A config whose layers share caches by an unknown rule gets the reason in place of a split."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"num_hidden_layers": 8, "use_cla": True, "cla_share_factor": 2}))
    with pytest.raises(BadInputError, match=r"no layer split is known .*use_cla=True"):
        run("partition", str(file))


@pytest.mark.parametrize("named", ["{}", "shape:{}", "{}/config.json", "shape:{}/config.json"])
def test_partition_reads_a_bare_config_file(tmp_path, named):
    """A config.json alone is enough, and it is named as in --pp-model."""
    (tmp_path / "config.json").write_text(json.dumps({"n_layer": 7}))
    output = run("partition", named.format(tmp_path), "--pp", "1,2").output
    assert "PP=1: vLLM's own layer split 7\n" in output
    assert "PP=2: vLLM's own layer split 4,3\n" in output


@pytest.mark.parametrize(
    ("shape", "splits"),
    [
        ("E2B", ["=13,22", "=4,4,5,22"]),
        ("E4B", [" 21,21", "=7,7,8,20"]),
        ("26B-A4B", [" 15,15", " 7,8,8,7"]),
        ("31B", [" 30,30", " 15,15,15,15"]),
    ],
)
def test_partition_knows_the_published_shapes(shape, splits):
    """Each can be planned by name; the splits are those of its published config."""
    output = run("partition", f"shape:{shape}", "--pp", "2,4").output
    assert all(f"{split}\n" in output for split in splits)


@pytest.mark.parametrize(
    "arguments",
    [
        ("partition", "no-such-file"),
        ("partition", "no/such/file"),
        ("partition", "shape:E9B"),
        ("partition", "ple", "--pp", "two"),
        ("partition", "ple", "--pp", "2,4", "--split", "5,5"),
    ],
)
def test_bad_input_is_refused(arguments):
    """Bad input is the error that the command line turns into status 2."""
    with pytest.raises(BadInputError):
        run(*arguments)
