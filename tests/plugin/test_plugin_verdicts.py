"""What a run with --pp collects, how verdicts become outcomes, and what it leaves behind."""

import json
import subprocess
import sys

import jsonschema
import pytest

from harness.assets import suites_dir
from harness.report.history import read
from harness.report.schema import Report
from harness.report.trend import trends

CHECKS = ("engine", "contract", "logits", "accuracy")
# The verdicts that the design's table asks for: every item that is no pass.
FOUNDING = {
    ("base", model, pp, check)
    for model in ("dense", "ple", "moe", "mm")
    for pp in (2, 4)
    for check in CHECKS
} | {
    ("merged", model, pp, check)
    for model in ("ple", "mm")
    for pp in (2, 4)
    for check in ("contract", "logits", "accuracy")
}


def report(run, folder="report"):
    return json.loads((run.pytester.path / folder / "report.json").read_text())


def ids(result):
    return [line for line in result.outlines if "::" in line]


def test_founding_case(suite):
    """`--pp 4` judges 96 items at PP 2 and 4; each that is no pass is expected, and says why."""
    result = suite("--pp", "4", "--pp-report", "report", "-rx")
    result.assert_outcomes(passed=96 - len(FOUNDING), xfailed=len(FOUNDING))
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
        f"merged-{model}-pp{pp}" for model in ("dense", "mm", "moe", "ple") for pp in (1, 2)
    ]
    contract = next(one for one in written["findings"] if one["code"] == "CON001")
    assert (contract["model"], contract["pp"], contract["key"]) == ("ple", 2, "per_layer_inputs")
    assert contract["stage"] == 1
    assert contract["fix"]
    assert written["environment"]["pin"] == "0.20.2"


def test_ignoring_expectations_turns_known_findings_red(suite):
    """`--pp-ignore-expected` fails what expected.toml would excuse, with the finding's message."""
    result = suite("--pp", "4", "--pp-ignore-expected", "--pp-report", "report")
    result.assert_outcomes(passed=96 - len(FOUNDING), failed=len(FOUNDING))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*'per_layer_inputs' is sent over 0->1 but stage 1 never reads*"])
    assert not any(one["expected"] for one in report(suite)["verdicts"])


def test_unexpected_passes_turn_red(suite, monkeypatch):
    """When what is expected to fail passes, the run is red until the entry goes."""
    monkeypatch.setenv("FAKE_ENGINES", "cured")
    result = suite("--pp", "2", "--pp-variant", "merged", "--pp-model", "ple")
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(["*unexpected pass: LOG001 is expected here*remove the entry*"])


def test_ids_are_stable(suite):
    """Item ids are the check and variant-model-ppN: what -k and a nightly's history go by."""
    result = suite("--pp", "4", "--collect-only", "-q")
    collected = ids(result)
    assert len(collected) == 96
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
    result.assert_outcomes(passed=1, deselected=95)
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
    assert "96 tests collected" in done.stdout


def test_history_gets_a_line_per_check(suite):
    """--pp-history appends; a second night adds to the first, and steady nights are no alarm."""
    for _ in range(2):
        suite("--pp", "2", "--pp-model", "ple", "--pp-history", "nights/history.jsonl")
    history = read(suite.pytester.path / "nights" / "history.jsonl")
    assert {len(lines) for lines in history.tracks} == {2}
    assert {(line.variant, line.check) for line in history.lines} == {
        (variant, check) for variant in ("base", "merged", "fixed") for check in CHECKS
    }
    assert not [alarm for trend in trends(history, 2) for alarm in trend.alarms]


def test_an_unexpected_pass_turns_the_night_red(suite, monkeypatch):
    """What is fixed fails until its entry goes: the run, and the night in the history."""
    options = ("--pp", "2", "--pp-model", "ple", "--pp-history", "history.jsonl")
    assert suite(*options).ret == 0
    monkeypatch.setenv("FAKE_ENGINES", "cured")
    assert suite(*options).ret == pytest.ExitCode.TESTS_FAILED
    nights = trends(read(suite.pytester.path / "history.jsonl"), 2)
    alarms = {(trend.last.variant, trend.last.check): trend.alarms for trend in nights}
    code, message = alarms["merged", "logits"][0]
    assert code == "TRD001"
    assert message.startswith("not green: unexpected pass: LOG001 is expected here")


def test_several_pins_are_one_run(suite):
    """Two releases: one report, one table with a column for them, cells told apart by their id."""
    options = ("--pp-variant", "fixed", "--pp-model", "ple", "--pp-report", "report")
    result = suite("--pp", "2", "--pp-pin", "0.20.2,0.26.0", *options)
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(
        [
            "pp-harness: vLLM 0.20.2, series gemma4-pp *",
            "pp-harness: vLLM 0.26.0, series gemma4-ple-pp *",
            "pin     variant  model  pp  engine*",
            "0.20.2  fixed    ple    2   pass*",
            "0.26.0  fixed    ple    2   pass*",
        ]
    )
    written = report(suite)
    assert {cell["id"]: cell["pin"] for cell in written["cells"]} == {
        "fixed-ple-pp1": "0.20.2",
        "fixed-ple-pp2": "0.20.2",
        "fixed-ple-pp1-v0.26.0": "0.26.0",
        "fixed-ple-pp2-v0.26.0": "0.26.0",
    }
    assert [one["pin"] for one in written["verdicts"]] == ["0.20.2"] * 4 + ["0.26.0"] * 4
    pins = written["environment"]["pins"]
    assert {version: pins[version]["series"] for version in pins} == {
        "0.20.2": "gemma4-pp",
        "0.26.0": "gemma4-ple-pp",
    }


def test_expectations_are_those_of_the_pin(suite):
    """What is known of one release is not expected of another: base there is no crash."""
    options = ("--pp-variant", "base", "--pp-model", "ple", "--pp-pin", "0.26.0")
    result = suite("--pp", "2", *options)
    # The captures crash as those of 0.20.2 do: at 0.26.0 that is news.
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.parseoutcomes()["failed"] >= 2


def test_a_run_in_which_nothing_applies_fails(suite):
    """A runner that is not in effect: items are skipped with the reason, and that is no pass."""
    options = ("--pp-variant", "fixed", "--pp-model", "ple", "--pp-runner", "v2", "-rs")
    result = suite("--pp", "2", *options)
    result.assert_outcomes(skipped=4)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "fixed    ple    2   not-applicable  not-applicable*",
            "pp-harness: --pp was given and no point was judged*",
            "SKIPPED*the model runner v2 was asked for and v1 is in effect",
        ]
    )


def test_the_margin_reaches_the_verdict(suite):
    """The margin that was asked for is the verdict's; answers never right cannot pass."""
    asked = ("--pp", "2", "--pp-variant", "merged", "--pp-model", "mm", "--pp-ignore-expected")
    judged = {}
    for margin in ("0.01", "0.5"):
        # In parity the first token that differs decides, whatever the margin.
        result = suite(
            *asked,
            "--pp-profile",
            "stress",
            "--pp-margin",
            margin,
            "--pp-report",
            margin,
            "-k",
            "accuracy",
        )
        (verdict,) = report(suite, margin)["verdicts"]
        judged[margin] = (result.ret, verdict["verdict"], verdict["figures"]["margin"])
    assert judged == {"0.01": (1, "inconclusive", 0.01), "0.5": (1, "inconclusive", 0.5)}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "pp-harness: 128 questions cannot rule out a 1-point drop (301 can if no answer *"),
        (("--pp-gsm8k-limit", "9"), "*: warning: --pp-gsm8k-limit 9: 9 questions cannot *"),
        (
            ("--pp-gsm8k-limit", "70", "--pp-margin", "0.05"),
            "*--pp-gsm8k-limit 70: 70 questions can rule out a 5-point drop only if few *",
        ),
        (("--pp-margin", "0.1"), "*: 128 questions can rule out a 10-point drop (it takes *"),
    ],
)
def test_the_header_says_what_the_questions_decide(suite, options, line):
    """One line before anything runs, a warning where a limit leaves too few questions."""
    result = suite("--pp", "2", "--collect-only", *options)
    result.stdout.fnmatch_lines([line])
    assert result.ret == 0
    assert sum("-point drop" in line for line in result.outlines) == 1


def test_a_shape_is_asked_nothing_and_says_nothing_of_questions(suite):
    """Where no model can answer, the header has no line on what answers decide."""
    result = suite("--pp", "2", "--pp-model", "shape:E4B", "--collect-only")
    assert "-point drop" not in result.stdout.str()
