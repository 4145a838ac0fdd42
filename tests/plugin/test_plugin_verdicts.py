"""What a run with --pp collects, how verdicts become outcomes, and what it leaves behind."""

import json
import subprocess
import sys

import jsonschema
import pytest

from harness.assets import suites_dir
from harness.report.schema import Report

CHECKS = ("engine", "contract", "logits", "accuracy")
# The verdicts that the design's table asks for: every item that is no pass.
FOUNDING = {
    ("base", model, pp, check)
    for model in ("dense", "ple", "moe")
    for pp in (2, 4)
    for check in CHECKS
} | {("merged", "ple", pp, check) for pp in (2, 4) for check in ("contract", "logits", "accuracy")}


def report(run, folder="report"):
    return json.loads((run.pytester.path / folder / "report.json").read_text())


def ids(result):
    return [line for line in result.outlines if "::" in line]


def test_founding_case(suite):
    """`--pp 4` judges 72 items at PP 2 and 4; each that is no pass is expected, and says why."""
    result = suite("--pp", "4", "--pp-report", "report", "-rx")
    result.assert_outcomes(passed=72 - len(FOUNDING), xfailed=len(FOUNDING))
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "*pipeline parallelism against PP=1*",
            "variant  model  pp  engine  contract  logits  *accuracy",
            "base     dense  2   fail*   fail*     blocked*  blocked*",
            "merged   ple    4   pass    fail*     fail*     fail*",
            "fixed    moe    4   pass    pass      pass      *pass",
            "[*] expected, see expected.toml",
        ]
    )
    written = report(suite)
    assert {
        (one["variant"], one["model"], one["pp"], one["check"])
        for one in written["verdicts"]
        if one["verdict"] != "pass"
    } == FOUNDING
    assert all(one["expected"] for one in written["verdicts"] if one["verdict"] != "pass")


def test_report_is_valid_against_its_schema(suite):
    """report.json fits the published schema, and holds each cell once with its fields."""
    suite("--pp", "2", "--pp-variant", "merged", "--pp-report", "report")
    written = report(suite)
    jsonschema.validate(written, Report.model_json_schema(by_alias=True))
    assert written["schema"] == "pp-harness-report/1"
    assert [cell["id"] for cell in written["cells"]] == [
        f"merged-{model}-pp{pp}" for model in ("dense", "moe", "ple") for pp in (1, 2)
    ]
    (contract,) = [one for one in written["findings"] if one["code"] == "CON001"]
    assert (contract["model"], contract["pp"], contract["key"]) == ("ple", 2, "per_layer_inputs")
    assert contract["rank"] == 1
    assert contract["cure"]
    assert written["environment"]["pin"] == "0.20.2"


def test_ignoring_expectations_turns_known_findings_red(suite):
    """`--pp-ignore-expected` fails what expected.toml would excuse, with the finding's message."""
    result = suite("--pp", "4", "--pp-ignore-expected", "--pp-report", "report")
    result.assert_outcomes(passed=72 - len(FOUNDING), failed=len(FOUNDING))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*'per_layer_inputs' is sent over 0->1 but stage 1 never reads*"])
    assert not any(one["expected"] for one in report(suite)["verdicts"])


def test_cured_bugs_turn_red(suite, monkeypatch):
    """When what is expected to fail passes, the run is red until the entry goes."""
    monkeypatch.setenv("FAKE_ENGINES", "cured")
    result = suite("--pp", "2", "--pp-variant", "merged", "--pp-model", "ple")
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(["*cured: LOG001 is expected here*remove the entry*"])


def test_ids_are_stable(suite):
    """Item ids are the check and variant-model-ppN: what -k and a nightly's history go by."""
    result = suite("--pp", "4", "--collect-only", "-q")
    collected = ids(result)
    assert len(collected) == 72
    assert "test_pipeline.py::test_contract[fixed-ple-pp2]" in collected
    assert {line.split("::test_")[1].split("[")[0] for line in collected} == set(CHECKS)


@pytest.mark.parametrize(
    ("option", "sizes"), [("4", {2, 4}), ("3", {2, 3}), ("2", {2}), ("3,2", {2, 3}), ("4,", None)]
)
def test_sizes(suite, option, sizes):
    """One N means the powers of two below it, and N; a list means exactly those."""
    result = suite("--pp", option, "--pp-variant", "fixed", "--collect-only", "-q")
    if sizes is None:
        assert result.ret == 4
    else:
        found = {int(line.rpartition("-pp")[2].rstrip("]")) for line in ids(result)}
        assert found == sizes


def test_selection_by_variant_and_model(suite):
    """Variants and models can be repeated or separated by commas."""
    result = suite(
        *("--pp", "2", "--pp-variant", "base,fixed", "--collect-only", "-q"),
        *("--pp-model", "ple", "--pp-model", "moe"),
    )
    points = {line.partition("[")[2].rstrip("]") for line in ids(result)}
    assert points == {f"{v}-{m}-pp2" for v in ("base", "fixed") for m in ("ple", "moe")}


def test_selection_by_keyword(suite):
    """With -k only the selected items are judged, and the report holds only those."""
    result = suite("--pp", "4", "-k", "logits and fixed-ple-pp2", "--pp-report", "report")
    result.assert_outcomes(passed=1, deselected=71)
    written = report(suite)
    assert len(written["verdicts"]) == 1
    assert [cell["id"] for cell in written["cells"]] == ["fixed-ple-pp1", "fixed-ple-pp2"]


def test_more_stages_than_layers_fails(suite):
    """A PP size above the number of layers is an engine failure with the reason, no skip."""
    result = suite("--pp", "64,", "--pp-variant", "fixed", "--pp-model", "dense")
    assert result.ret == 4
    result = suite("--pp", "63,64", "--pp-variant", "fixed", "--pp-model", "dense")
    result.assert_outcomes(failed=8)
    result.stdout.fnmatch_lines(["*layers, fewer than 64 ranks*"])


def test_workers_report_to_the_controller(suite):
    """Under -n 2 the controller has every record: table and report are those of a plain run."""
    pytest.importorskip("xdist")
    options = ("--pp", "2", "--pp-variant", "merged", "--pp-report")
    suite(*options, "alone")
    result = suite(*options, "spread", "-n", "2", how="runpytest_subprocess")
    result.assert_outcomes(passed=9, xfailed=3)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["merged   ple    2   pass    fail[*]*"])

    def key(one):
        return (one["variant"], one["model"], one["pp"], one["check"])

    alone, spread = report(suite, "alone"), report(suite, "spread")
    assert sorted(spread["verdicts"], key=key) == sorted(alone["verdicts"], key=key)
    assert [cell["id"] for cell in spread["cells"]] == [cell["id"] for cell in alone["cells"]]


def test_controller_imports_neither_torch_nor_vllm(tmp_path):
    """Planning a run costs neither import: the controller's environment needs none of them."""
    code = (
        "import sys, pytest\n"
        f"status = pytest.main([{str(suites_dir())!r}, '--pp', '4', '--collect-only', '-q',"
        " '-p', 'no:cacheprovider'])\n"
        "heavy = {'torch', 'vllm', 'transformers', 'lm_eval', 'datasets'} & set(sys.modules)\n"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "72 tests collected" in done.stdout
