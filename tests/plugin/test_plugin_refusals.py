"""Inert without --pp; with it, bad input ends in one line and a run without a verdict fails."""

import json

import pytest

LINE = '{"question": "How many?", "answer": "Two. #### 2"}\n'


@pytest.fixture
def files(pytester):
    """Write the files that options name."""
    (pytester.path / "good.jsonl").write_text(LINE)
    (pytester.path / "malformed.jsonl").write_text(LINE + '{"question": "How many?"}\n')
    (pytester.path / "empty.jsonl").write_text("")
    (pytester.path / "list.jsonl").write_text('{"question": "How many?", "answer": ["####"]}')
    (pytester.path / "empty-series").mkdir()
    (pytester.path / "no-model").mkdir()
    (pytester.path / "dataset").mkdir()
    (pytester.path / "dataset" / "dataset.py").write_text("raise SystemExit('run')\n")
    return pytester.path


REFUSED = {
    "one": (["--pp", "1"], "sizes start at 2"),
    "zero": (["--pp", "0"], "sizes start at 2"),
    "negative": (["--pp=-4"], "sizes start at 2"),
    "word": (["--pp", "x"], "--pp x: give one size (4) or a list (2,3)"),
    "empty": (["--pp", ""], "give one size"),
    "one in a list": (["--pp", "1,2"], "sizes start at 2"),
    "variant": (["--pp-variant", "nope"], "--pp-variant nope: "),
    "model": (["--pp-model", "nope"], "no model 'nope'"),
    "model folder": (["--pp-model", "./no-model"], "it has no config.json"),
    "model twice": (["--pp-model", "ple,ple"], "two models are named ple"),
    "series": (["--pp-series", "gone"], "gone"),
    "empty series": (["--pp-series", "empty-series"], "empty-series"),
    "partition word": (["--pp-partition", "a,b"], "--pp-partition a,b"),
    "partition zero": (["--pp-partition", "0,8"], "every stage needs a layer"),
    "partition stages": (["--pp-partition", "2,3,3"], "has 3 stages; --pp asks for 2"),
    "partition layers": (["--pp-partition", "3,4"], "--pp-partition 3,4 is impossible for dense"),
    "limit": (["--pp-gsm8k-limit", "0"], ": give a whole number, 1 or more"),
    "negative limit": (["--pp-gsm8k-limit=-3"], ": give a whole number, 1 or more"),
    "limit word": (["--pp-gsm8k-limit", "x"], "--pp-gsm8k-limit x: give a whole number"),
    "margin": (["--pp-margin", "1"], "--pp-margin 1: give a share between 0 and 1"),
    "no margin": (["--pp-margin", "nan"], "--pp-margin nan: give a share"),
    "fewshot": (["--pp-gsm8k-fewshot=-1"], "--pp-gsm8k-fewshot -1: give a whole number, 0 or more"),
    "bundled shots": (["--pp-gsm8k-fewshot", "5"], "has no examples for 5 shots"),
    "no questions": (["--pp-gsm8k", "gone.jsonl"], "gone.jsonl"),
    "dataset with a script": (["--pp-gsm8k", "dataset"], "dataset: cannot be read"),
    "empty questions": (["--pp-gsm8k", "empty.jsonl"], "holds no questions"),
    "malformed": (["--pp-gsm8k", "malformed.jsonl"], "malformed.jsonl:2: no GSM8K line"),
    "no examples": (["--pp-gsm8k", "good.jsonl", "--pp-gsm8k-fewshot", "5"], "train.jsonl"),
    "device": (["--pp-device", "tpu"], "--pp-device tpu: give auto, cpu or cuda"),
    "runner": (["--pp-runner", "v3"], "--pp-runner v3: give auto, v1 or v2"),
    "pin": (["--pp-pin", "9.9.9"], "no pin for vLLM 9.9.9; known: 0.20.2, 0.26.0"),
    "pin of a checkout": (
        ["--pp-pin", "0.26.0", "--pp-vllm", "."],
        "--pp-pin does not go with --pp-vllm",
    ),
    "answer": (["--pp-gsm8k", "list.jsonl"], "list.jsonl:1: no GSM8K line"),
    "history folder": (["--pp-history", "no-model"], "--pp-history no-model: is a folder"),
    "history below a file": (["--pp-history", "empty.jsonl/x"], "empty.jsonl is a file"),
    "time-out": (["--pp-timeout", "0"], "--pp-timeout 0: give seconds, above 0"),
    "time limit": (["--pp-time-limit", "nan"], "--pp-time-limit nan: give seconds, above 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_clear_line(suite, files, case):
    """Bad input ends with status 4 and one line that names the option and the cure."""
    options, words = REFUSED[case]
    result = suite(
        *([] if options[0].startswith("--pp=") or options[0] == "--pp" else ["--pp", "2"]), *options
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in result.errlines if line.strip()]
    told = [line for line in errors if words in line]
    assert len(told) == 1, errors
    assert "Traceback" not in result.stderr.str()
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("options", [["--collect-only"], []])
def test_good_file_with_examples_is_accepted(suite, files, options):
    """A file with train.jsonl beside it serves few-shot questions."""
    (files / "train.jsonl").write_text(LINE)
    result = suite(
        *("--pp", "2", "--pp-variant", "fixed", "--pp-gsm8k", "good.jsonl"),
        *("--pp-gsm8k-fewshot", "5", *options),
    )
    assert result.ret == 0


def test_question_with_a_line_separator_inside(suite, files):
    """JSON may hold U+2028 and its like unescaped: a file is cut at newlines and nowhere else."""
    row = {"question": "One\u2028two\x85three?", "answer": "#### 2"}
    (files / "odd.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    result = suite("--pp", "2", "--pp-gsm8k", "odd.jsonl", "--collect-only", "-q")
    assert result.ret == 0


# ---- inert --------------------------------------------------------------------------------


def test_inert_without_pp(suite):
    """Without --pp the suite's items are skipped and other tests run as ever."""
    suite.pytester.makepyfile(test_other="def test_other(): pass")
    result = suite("-rs")
    result.assert_outcomes(passed=1, skipped=4)
    assert result.ret == 0
    assert "pipeline parallelism" not in result.stdout.str()


@pytest.mark.parametrize("mark", ["xfail", "fail_at_collect"])
def test_inert_whatever_an_empty_parameter_set_means(suite, mark):
    """A project's own choice for empty parameter sets does not reach the skipped suite."""
    suite.pytester.makeini(f"[pytest]\nempty_parameter_set_mark = {mark}")
    suite().assert_outcomes(skipped=4)


def test_other_options_are_ignored_without_pp(suite):
    """Without --pp a bad value elsewhere is nobody's business."""
    assert suite("--pp-variant", "nope").ret == 0


def test_help_explains_every_option(suite):
    """Each option of the plugin stands in --help, in a group of its own, with its meaning."""
    text = suite("--help").stdout.str()
    assert "pipeline-parallel regression harness:" in text
    for option in (
        *("", "-variant", "-series", "-model", "-device", "-gsm8k", "-gsm8k-limit"),
        *("-gsm8k-fewshot", "-partition", "-report", "-store", "-timeout", "-ignore-expected"),
    ):
        assert f"--pp{option}" in text


# ---- fail-closed --------------------------------------------------------------------------

NOTHING = "*--pp was given and no point was judged*"


def test_nothing_collected_fails(suite):
    """With --pp a run that collects nothing is a failure and not an empty success."""
    (suite.pytester.path / "test_pipeline.py").unlink()
    result = suite("--pp", "2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([NOTHING])


def test_everything_deselected_fails(suite):
    """A -k that fits nothing is a failure."""
    result = suite("--pp", "2", "-k", "nothing")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([NOTHING])


def test_everything_skipped_fails(suite):
    """Skipped is never pass: a run whose items are all skipped fails."""
    suite.pytester.makeconftest(
        "import pytest\n"
        "def pytest_collection_modifyitems(items):\n"
        "    for item in items:\n"
        "        item.add_marker(pytest.mark.skip)\n"
    )
    result = suite("--pp", "2", "--pp-variant", "fixed")
    result.assert_outcomes(skipped=16)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([NOTHING])


def test_other_tests_do_not_count_as_points(suite):
    """Tests that judge no point cannot make a run with --pp green."""
    (suite.pytester.path / "test_pipeline.py").unlink()
    suite.pytester.makepyfile(test_other="def test_other(): pass")
    assert suite("--pp", "2").ret == pytest.ExitCode.TESTS_FAILED


def test_collect_only_is_no_failure(suite):
    """Looking at what would run judges nothing and is fine."""
    assert suite("--pp", "2", "--collect-only", "-q").ret == 0


def test_too_few_devices_blocks(suite, monkeypatch):
    """Fewer devices than asked for is blocked with the reason, which is no pass and no skip."""
    import harness.capture.pools as pools
    from harness.capture.devices import DevicePool

    monkeypatch.setattr(pools, "find_devices", lambda _, _ranks: DevicePool("cuda", (0,)))
    result = suite("--pp", "2", "--pp-variant", "fixed", "--pp-model", "dense")
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(["*PP=2 needs 2 cuda devices, 1 can be used*"])


@pytest.mark.parametrize("option", ["--pp-report", "--pp-store"])
@pytest.mark.parametrize("folder", ["taken", "taken/below"])
def test_folder_that_cannot_be_is_refused_early(suite, option, folder):
    """A folder to write to that is a file is refused before any engine starts, not after."""
    (suite.pytester.path / "taken").write_text("")
    result = suite("--pp", "2", option, folder)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"{option} {folder}: " in result.stderr.str()
