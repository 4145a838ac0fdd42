"""The command line: formats, exit statuses, waivers, and what it does with garbage."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from lint_models import SOUND, changed, codes, lint_source
from pydantic import BaseModel, ConfigDict, Field
from sarif_pydantic import Sarif

from harness.cli.lint import lint
from harness.errors import BadInputError
from harness.lint import RULES, lint_paths

BROKEN = changed(('["hidden_states", "residual"], config', '["hidden_states"], config'))
LINE = '{"hidden_states": hidden_states, "residual": residual}'
DOCS = Path(__file__).parents[2] / "docs"


def run(*args: object):
    """Call the command; it must end itself, never by an exception."""
    result = CliRunner().invoke(lint, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture
def broken(tmp_path):
    """Return a model file with one error."""
    path = tmp_path / "toy.py"
    path.write_text(BROKEN)
    return path


def test_clean_file_is_status_0(tmp_path):
    """A sound model ends with 0."""
    path = tmp_path / "toy.py"
    path.write_text(SOUND)
    assert run(path).exit_code == 0


def test_finding_is_status_1_and_a_line_of_text(broken):
    """An error ends with 1 and is written as path:line:column: code."""
    result = run(broken)
    assert result.exit_code == 1
    assert re.search(r"toy\.py:\d+:\d+: PP102 error: ", result.output)


def test_info_is_shown_on_demand_and_never_counts(tmp_path):
    """Info alone does not fail a push, and is shown with --verbose."""
    path = tmp_path / "toy.py"
    path.write_text(SOUND.replace("(nn.Module, SupportsPP)", "(Elsewhere, SupportsPP)"))
    assert run(path).exit_code == 0
    assert "PP902" not in run(path).output
    assert "1 info (--verbose)" in run(path).output
    result = run("--verbose", path)
    assert "PP902" in result.output
    assert result.exit_code == 0


def test_json_is_a_list_of_findings(broken):
    """Each finding has code, severity, path, line, message and fix."""
    records = json.loads(run(broken, "--output-format", "json").output)
    assert isinstance(records, list)
    assert records[0]["code"] == "PP102"
    assert records[0]["severity"] == "error"
    assert records[0]["path"] == str(broken)
    assert {"line", "message", "fix", "symbol"} <= set(records[0])
    assert set(records[0]["runners"]) == {"V1", "V2"}


def test_json_of_nothing_is_an_empty_list(tmp_path):
    """A clean report is still JSON."""
    (tmp_path / "toy.py").write_text(SOUND)
    assert json.loads(run(tmp_path, "--output-format", "json").output) == []


def test_github_annotation(broken):
    """Findings become workflow commands, with separators escaped."""
    line = run(broken, "--output-format", "github").output.splitlines()[0]
    assert line.startswith("::error file=")
    assert ",title=PP102::" in line


class Strict(BaseModel):
    """SARIF 2.1.0 asks this of the properties that we write; no other property is written.

    Written from the standard by hand: no package carries its schema file.
    """

    model_config = ConfigDict(extra="forbid")


class Text(Strict):
    """A `message` or `multiformatMessageString`."""

    text: str = Field(min_length=1)


class Level(Strict):
    """A `reportingConfiguration`."""

    level: Literal["none", "note", "warning", "error"]


class Described(Strict):
    """A `reportingDescriptor`."""

    id: str
    name: str
    shortDescription: Text  # noqa: N815  the standard's names
    fullDescription: Text  # noqa: N815
    help: Text
    defaultConfiguration: Level  # noqa: N815


class Driver(Strict):
    """A `toolComponent`."""

    name: str
    rules: list[Described]


class Tool(Strict):
    """A `tool`."""

    driver: Driver


class Artifact(Strict):
    """An `artifactLocation`; a URI reference has no space in it."""

    uri: str = Field(pattern=r"^\S+$")


class Region(Strict):
    """A `region`."""

    startLine: int = Field(ge=1)  # noqa: N815
    startColumn: int = Field(ge=1)  # noqa: N815


class Physical(Strict):
    """A `physicalLocation`."""

    artifactLocation: Artifact  # noqa: N815
    region: Region


class Place(Strict):
    """A `location`."""

    physicalLocation: Physical  # noqa: N815


class Result(Strict):
    """A `result`."""

    ruleId: str  # noqa: N815
    ruleIndex: int = Field(ge=0)  # noqa: N815
    level: Literal["none", "note", "warning", "error"]
    message: Text
    locations: list[Place] = Field(min_length=1)
    partialFingerprints: dict[str, str]  # noqa: N815


class Run(Strict):
    """A `run`."""

    tool: Tool
    columnKind: Literal["utf16CodeUnits", "unicodeCodePoints"]  # noqa: N815
    results: list[Result]


class Log(Strict):
    """A `sarifLog`."""

    schema_uri: str = Field(alias="$schema")
    version: Literal["2.1.0"]
    runs: list[Run]


def test_sarif_has_the_structure_that_the_standard_asks_for(tmp_path):
    """The log validates, and each result points at the rule that it names."""
    path = tmp_path / "a model.py"
    path.write_text(BROKEN)
    output = run(path, "--output-format", "sarif").output
    log = Log.model_validate_json(output)
    # The standard once more, as somebody else has written it down.
    assert len(Sarif.model_validate_json(output).runs[0].results) == len(log.runs[0].results)
    rules = log.runs[0].tool.driver.rules
    assert [rule.id for rule in rules] == list(RULES)
    assert log.runs[0].results
    for result in log.runs[0].results:
        assert rules[result.ruleIndex].id == result.ruleId


def test_explain_names_runners_and_fix():
    """--explain tells what a code means, how each runner shows it, and the fix."""
    result = run("--explain", "pp105")
    assert result.exit_code == 0
    assert "V1 runner" in result.output
    assert RULES["PP105"].fix in result.output
    assert run("--explain", "PP999").exit_code == 2


def test_rules_are_in_the_docs():
    """The table of docs/lint.md has every rule, with its name and severity, and no other."""
    page = (DOCS / "lint.md").read_text()
    rows = re.findall(r"^\| (PP\d+) \| ([\w-]+) \| (\w+) \|", page, re.MULTILINE)
    assert rows == [(rule.code, rule.name, str(rule.severity)) for rule in RULES.values()]


# ---- waivers


def test_waiver_on_the_line_and_above(tmp_path):
    """A waiver with a reason takes the finding out, and is counted."""
    inline = BROKEN.replace(LINE, f"{LINE}  # pp-lint: ignore[PP102] the runner adds it")
    report = lint_source(tmp_path, inline)
    assert codes(report) == []
    assert report.waived == 1
    above = BROKEN.replace(
        LINE, f"# pp-lint: ignore[PP102] the runner adds it\n                {LINE}"
    )
    assert codes(lint_source(tmp_path, above)) == []


def test_waiver_without_reason_is_not_applied(tmp_path):
    """A waiver must say why."""
    source = BROKEN.replace(LINE, f"{LINE}  # pp-lint: ignore[PP102]")
    assert set(codes(lint_source(tmp_path, source))) == {"PP102", "PP904"}


def test_waiver_of_everything_is_not_applied(tmp_path):
    """A waiver must say what."""
    source = BROKEN.replace(LINE, f"{LINE}  # pp-lint: ignore because I say so")
    assert set(codes(lint_source(tmp_path, source))) == {"PP102", "PP904"}


def test_unused_waiver_is_a_finding(tmp_path):
    """A waiver outlives its fault no longer than one lint."""
    source = SOUND.replace(LINE, f"{LINE}  # pp-lint: ignore[PP102] no longer so")
    assert codes(lint_source(tmp_path, source)) == ["PP903"]


def test_waiver_in_a_string_is_text(tmp_path):
    """Only comments waive."""
    source = SOUND + '\nTEXT = "# pp-lint: ignore[PP102] not a comment"\n'
    assert codes(lint_source(tmp_path, source)) == []


# ---- garbage


def test_missing_path():
    """A path that is not there is bad input."""
    result = run("nowhere/at/all.py")
    assert result.exit_code == 2
    assert "no such file" in result.output


def test_no_path():
    """So is no path at all."""
    assert run().exit_code == 2


def test_empty_folder(tmp_path):
    """A folder without Python is bad input, not a clean result."""
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "no Python file" in result.output


def test_files_without_pp_are_clean_named_or_in_a_folder(tmp_path):
    """A file without PP passes, by itself and in its folder, and the text says so."""
    path = tmp_path / "a.py"
    path.write_text("print(1)\n")
    for target in (path, tmp_path):
        result = run(target)
        assert result.exit_code == 0
        assert "0 PP classes in 0 of 1 file" in result.output


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\x00\x01SupportsPP\xff", "binary"),
        (b"SupportsPP \xff\xfe\n", "UTF-8"),
        (b"class SupportsPP(:\n", "cannot be parsed"),
        (b"# SupportsPP\n" + b"x = 1\n" * 900_000, "larger than"),
    ],
)
def test_unreadable_file(tmp_path, content, text):
    """A file that cannot be read is reported with the reason, status 2; the rest is linted."""
    (tmp_path / "bad.py").write_bytes(content)
    (tmp_path / "toy.py").write_text(BROKEN)
    result = run(tmp_path)
    assert result.exit_code == 2
    assert text in result.output
    assert "PP102" in result.output


def test_class_that_inherits_from_itself(tmp_path):
    """A circle of classes is named, status 2."""
    path = tmp_path / "a.py"
    path.write_text("class A(B, SupportsPP):\n    pass\n\n\nclass B(A):\n    pass\n")
    result = run(path)
    assert result.exit_code == 2
    assert "inherits from itself" in result.output


def test_loop_of_links(tmp_path):
    """A link to the folder above is not followed for ever."""
    (tmp_path / "toy.py").write_text(BROKEN)
    (tmp_path / "again").symlink_to(tmp_path)
    assert codes(lint_paths([tmp_path])) == ["PP102"]


def test_other_file_types(tmp_path):
    """A file that is not Python is refused by name."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"1")
    with pytest.raises(BadInputError, match="not a Python file"):
        lint_paths([path])


def test_deep_nesting_does_not_end_the_run(tmp_path):
    """An expression nested too deeply is reported, and nothing crashes."""
    path = tmp_path / "deep.py"
    path.write_text("SupportsPP = " + "(" * 190 + "1" + ")" * 190 + "\nx = " + "-" * 5000 + "1\n")
    assert run(path).exit_code in (0, 2)


@given(st.text(max_size=200))
def test_any_text_gives_a_report(tmp_path_factory, text):
    """The lint ends with a report on any text."""
    path = tmp_path_factory.getbasetemp() / "any.py"
    path.write_text("# SupportsPP\n" + text, encoding="utf-8", errors="replace")
    assert lint_paths([path]).files == 1


STATEMENTS = [line for line in SOUND.splitlines() if line.startswith("        ") and line.strip()]


@given(st.data())
def test_any_line_can_be_missing(tmp_path_factory, data):
    """A model that lacks some of its lines is linted like any other, if it still parses."""
    lost = data.draw(st.sets(st.sampled_from(STATEMENTS), max_size=6))
    source = "\n".join(line for line in SOUND.splitlines() if line not in lost)
    try:
        ast.parse(source)
    except SyntaxError:
        return
    path = tmp_path_factory.getbasetemp() / "lines.py"
    path.write_text(source)
    assert "PP901" not in codes(lint_paths([path]))


def test_report_does_not_depend_on_the_processes(tmp_path):
    """The report does not depend on the number of processes."""
    for number in range(30):
        (tmp_path / f"toy{number}.py").write_text(BROKEN if number % 3 else SOUND)
    assert lint_paths([tmp_path], jobs=1) == lint_paths([tmp_path], jobs=2)


@pytest.mark.parametrize("text", ["def f(:\n", "class A:\nx = 1\n"])
def test_a_file_that_cannot_be_parsed_is_reported_whatever_it_speaks_of(tmp_path, text):
    """A syntax error ends in status 2, named or in a folder, also where PP is not mentioned."""
    (tmp_path / "vllm.py").write_text(text)
    (tmp_path / "sound.py").write_text(SOUND)
    for target in (tmp_path / "vllm.py", tmp_path):
        result = run(target)
        assert result.exit_code == 2
        assert "vllm.py:" in result.output
        assert "cannot be parsed" in result.output
