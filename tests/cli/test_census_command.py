"""The command `pp-harness census`, up to the engines."""

import json
import sys

import pytest
from click.testing import CliRunner

from harness.cli.census import census
from harness.errors import BadInputError
from harness.models.shape import read_shape
from harness.report.schema import Report

pytestmark = pytest.mark.vllm  # reads the installed release


def run(*arguments):
    return CliRunner().invoke(census, arguments, catch_exceptions=False)


@pytest.fixture(autouse=True)
def _vllm():
    pytest.importorskip("transformers")


def test_the_plan_says_what_has_a_config_and_why_not(tmp_path):
    """No engine starts; each architecture has a row with one reason."""
    only = (
        "GPT2LMHeadModel,OrionForCausalLM,TeleFLMForCausalLM,VoxtralForConditionalGeneration,"
        "Gemma3nForCausalLM"
    )
    result = run("--plan", "--only", only, "--out", str(tmp_path))
    assert result.exit_code == 0
    rows = json.loads((tmp_path / "census.json").read_text())["rows"]
    assert {row["architecture"]: row["reason"] for row in rows} == {
        "GPT2LMHeadModel": "not run yet",
        "OrionForCausalLM": "not run yet",
        "TeleFLMForCausalLM": "no config",
        "VoxtralForConditionalGeneration": "not run yet",
        "Gemma3nForCausalLM": "does not claim PP",
    }
    (orion,) = [row["by"] for row in rows if row["architecture"] == "OrionForCausalLM"]
    assert "OrionStarAI/" in orion, "no class gives a config, the table names what it follows"
    assert {file.stem for file in (tmp_path / "configs").iterdir()} == {
        "GPT2LMHeadModel",
        "OrionForCausalLM",
        "VoxtralForConditionalGeneration",
    }
    assert "5 architectures, 4 claim PP, 3 of these have a config, 3 can" in result.output


def test_what_has_no_answer_at_pp_1_starts_no_more_stages(tmp_path, monkeypatch):
    """PP=2 first; the larger sizes are for architectures whose PP=1 has an answer."""
    asked = []

    def sweep(_release, configs, options, _store, _folder):
        names = [config.stem for config in configs]
        asked.append((options[options.index("--pp") + 1], sorted(names)))
        place = {"variant": "base", "pp": 2, "check": "engine"}
        passed = {"verdict": "pass", "expected": False, "summary": "s"}
        ended = {"code": "ENG004", "severity": "error", "fix": "f", "message": "m"}
        verdicts = [{**place, **passed, "model": name} for name in names]
        findings = [{**place, **ended, "model": "OPTForCausalLM"}]
        return Report(environment={}, cells=[], verdicts=verdicts, findings=findings)

    monkeypatch.setattr(sys.modules["harness.cli.census"], "_run", sweep)
    only = "GPT2LMHeadModel,OPTForCausalLM"
    assert run("--only", only, "--store", str(tmp_path), "--out", str(tmp_path)).exit_code == 0
    assert asked == [("2", ["GPT2LMHeadModel", "OPTForCausalLM"]), ("3,4", ["GPT2LMHeadModel"])]


@pytest.mark.parametrize("arguments", [("--only", "Lama"), ("--pin", "9.9"), ("--shard", "3/2")])
def test_bad_input_is_refused(tmp_path, arguments):
    """An unknown architecture, release or shard ends before an engine."""
    with pytest.raises(BadInputError):
        run(*arguments, "--out", str(tmp_path))


def test_a_config_in_a_file_is_a_shape_by_its_name(tmp_path):
    """The sweep runs it without a checkpoint, named by its architecture."""
    file = tmp_path / "XForCausalLM.json"
    file.write_text('{"num_hidden_layers": 8}')
    assert read_shape(f"shape:{file}") == ("XForCausalLM", {"num_hidden_layers": 8})
