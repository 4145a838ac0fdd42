"""The page: what it says, what it keeps from acting, that it stands alone, and its parts."""

import base64
import hashlib
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hostile import ACTING, hostile_report

from harness.assets import suites_dir
from harness.cli import main as cli
from harness.report.files import read_report
from harness.report.flips import part
from harness.report.heat_map import heat_map
from harness.report.html import render_page
from harness.report.pipe import pipe
from harness.report.reproduce import lasting, reproduce
from harness.report.schema import Report
from harness.report.text import one_line, printable
from harness.report.view import ReportView, anchor

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "results" / "2026-11-22-cpu"


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its text by the element it is in."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.ids, self.links, self.scripts = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if tag == "a" else []

    def handle_data(self, data):
        if self.lasttag == "script":
            self.scripts.append(data)


@pytest.fixture(scope="module")
def record():
    return read_report(RECORD)


@pytest.fixture(scope="module")
def page(record):
    return render_page(record)


@pytest.fixture(scope="module")
def hostile():
    return render_page(hostile_report())


def test_a_report_of_the_first_version_has_its_page(page, record):
    """A report from before stages, maps and phases were kept is shown, with all that it holds."""
    elements = Elements(page)
    for point in ReportView(record).points:
        assert point.anchor in elements.ids
    for finding in record.findings:
        assert finding.message.replace("'", "&#39;").replace(">", "&gt;") in page
    assert "PASS: 42 of 72 checks pass, 30 fail as expected.toml says" in page
    # Per-layer inputs, dropped: known from the cost alone.
    assert "dropped: sent, never read" in page


@pytest.mark.parametrize("name", ["page", "hostile"])
def test_names_are_unique_and_every_link_leads_somewhere(name, request):
    """No two elements share a name, and every link within the page has its end."""
    elements = Elements(request.getfixturevalue(name))
    assert len(elements.ids) == len(set(elements.ids))
    inner = [link[1:] for link in elements.links if link.startswith("#")]
    assert len(inner) > 10
    assert set(inner) <= set(elements.ids)


def test_it_is_one_file_below_a_megabyte(page):
    """Nothing is loaded: no address but of links; and the page fits into a mail."""
    assert len(page.encode()) < 1_000_000
    for tag, attributes in Elements(page).tags:
        assert "src" not in attributes, tag
        assert tag != "link" or attributes["href"] == "data:,"
        assert tag not in ("iframe", "object", "embed", "base", "img")


def test_only_its_own_script_may_run(page):
    """The policy names the digest of exactly the script that the page holds."""
    policy = next(a["content"] for tag, a in Elements(page).tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    assert re.findall(r"'sha256-([^']+)'", policy) == digests
    assert len(digests) == 1
    assert "unsafe" not in policy.partition("style-src")[0]


def test_hostile_text_stays_text(hostile):
    """HTML, quotes, ends of elements, template signs: the page has the elements of a tame one."""
    tame = Elements(render_page(hostile_report("tame")))
    wild = Elements(hostile)
    assert [tag for tag, _ in wild.tags if tag not in ("a",)] == [
        tag for tag, _ in tame.tags if tag not in ("a",)
    ]
    assert not [name for _, a in wild.tags for name in a if name.startswith("on")]
    assert not [link for link in wild.links if not re.match(r"#|https://e", link)]
    assert "{{ 7 * 7 }}" in hostile


def test_hostile_characters_do_not_act(hostile):
    """Escapes for terminals and for the order of text are written as codes."""
    ours = hostile[: hostile.index("<script>")]
    assert not ACTING & set(ours)
    assert "\\x1b[2J" in ours
    assert "\\u202eevil" in ours


def test_printable_keeps_what_only_shows():
    """Letters of any script, emoji, line feeds and tabs stay; what acts becomes its code."""
    assert printable("ab\n\tç שלום 数 🙂") == "ab\n\tç שלום 数 🙂"
    assert printable("\x00\x1b\x7f\x9b\u202e\ufeff\ud800\U000e0001") == (
        "\\x00\\x1b\\x7f\\x9b\\u202e\\ufeff\\ud800\\U000e0001"
    )
    assert one_line(" a\n b\x1b ", 4) == "a b…"


@pytest.mark.parametrize(
    ("left", "right", "marked"),
    [
        ("45 + 6 = 51", "45 + 7 = 52", (" 6", " 7")),
        ("same", "same and more", ("(ends)", " and")),
        ("", "x", ("(ends)", "x")),
        ("a  b", "a\n\tb", ("␣␣", "⏎⇥")),
        (" 45", " " * 64, (" 45", "␣␣␣␣␣␣␣␣… (64 characters)")),
    ],
)
def test_the_first_token_that_differs_is_marked(left, right, marked):
    """Words with their space, white space made visible; a text that ends first says so."""
    one, other = part(left, right)
    assert (one.token, other.token) == marked
    assert one.same == other.same
    assert left.startswith(one.same)
    assert left.endswith(one.rest)


def test_a_dropped_key_is_a_broken_wire(hostile):
    """The wire of a key that is sent and never read is bad, says why and names its finding."""
    view = ReportView(hostile_report("k"))
    drawn = pipe(view.points[0], "contract", view.findings)
    assert drawn.stages == {"0": "layer 0", "1": "layer 1"}
    (wire,) = drawn.boundaries[0].wires
    assert (wire.state, wire.note) == ("bad", "dropped: sent, never read")
    assert [one.record.code for one in wire.findings] == ["CON001"]


KEY = {"key": "k", "declared": True, "sent": 4, "copied": 4, "read": 4, "none": False}
KEY |= {"shape": [8], "dtype": "float32", "bytes_per_token": 32, "unused": 0.0}


@pytest.mark.parametrize(
    ("change", "steps", "state", "note"),
    [
        ({}, 4, "ok", ""),
        ({"unused": 0.25}, 4, "ok", "25% used by no later stage"),
        ({"unused": 1.0}, 4, "warn", "read, none of it used"),
        ({"read": 0}, 4, "bad", "dropped: sent, never read"),
        ({"read": 0, "copied": 0}, 4, "idle", "sent, not copied"),
        ({"read": 3}, 4, "bad", "read in 3 of 4 steps"),
        ({"sent": 3}, 4, "bad", "sent in 3 of 4 steps"),
        ({"sent": 0}, 4, "bad", "declared, never sent: stale"),
        ({"sent": 0, "declared": False}, 4, "bad", "read, never sent"),
        ({"declared": False}, 4, "bad", "sent, not declared"),
        ({"none": True, "sent": 0}, 0, "bad", "None is packed"),
        ({"sent": 0, "read": 0}, 0, "idle", "no step ran"),
    ],
)
def test_states_of_a_wire(change, steps, state, note):
    """Each way in which a key can get lost has its words; a whole one has none."""
    report = hostile_report("k")
    report.findings.clear()
    for verdict in report.verdicts:
        if verdict.check == "contract":
            verdict.figures["boundaries"] = [
                {"boundary": "0->1", "steps": steps, "keys": [KEY | change]}
            ]
    view = ReportView(report)
    (wire,) = pipe(view.points[0], "contract", view.findings).boundaries[0].wires
    assert (wire.state, wire.note) == (state, note)


def test_the_heat_map_has_its_stages_and_its_numbers():
    """Stages and requests are parted; equal bits have no colour; neighbours alike are one run."""
    difference = {
        "layers": [0, 1, 2, 3],
        "stages": [0, 0, 1, 1],
        "columns": [["a", 0, 1], ["a", 1, 1], ["b", 0, 2]],
        "changed": [[0, 0, 0], [0, 0, 0], [0, 1, 0.5], [1, 1, 1]],
        "norm": [[0, 0, 0], [0, 0, 0], [0, 0.01, 0], [0.1, None, 0.2]],
    }
    drawn = heat_map(difference)
    assert (drawn.columns, drawn.requests) == (3, (2,))
    assert drawn.levels == pytest.approx([10 ** (-7 + level * (6.30103 / 4)) for level in range(4)])
    assert [row.is_boundary for row in drawn.layers] == [False, False, True, False]
    runs = [[(run.start, run.count, run.level) for run in row.runs] for row in drawn.layers]
    assert runs == [[], [], [(1, 1, 4), (2, 1, 1)], [(0, 1, 4), (1, 1, 1), (2, 1, 4)]]
    assert drawn.layers[2].runs[1].text == "b position 0 to b position 1: norm by 0 at most"
    assert [(r.layer, r.differing, r.largest, r.first) for r in drawn.layers] == [
        (0, 0, None, ""),
        (1, 0, None, ""),
        (2, 2, 0.01, "a position 1"),
        (3, 3, 0.2, "a position 0"),
    ]


NONE, ALL = [False] * 4, [True] * 4
VERDICTS = {
    "all pass": (["pass"] * 4, NONE, "", "PASS: all 4 checks pass"),
    "known": (
        *(["fail"] * 4, ALL, ""),
        "PASS: 0 of 4 checks pass, 4 fail as expected.toml says",
    ),
    "fails": (
        *(["pass", "fail", "fail", "blocked"], [False, False, True, False], ""),
        "FAIL: 1 fail, 1 blocked of 4 checks, at v-v-pp2",
    ),
    "unexpected pass": (
        *(["pass"] * 4, NONE, "unexpected pass: remove"),
        "FAIL: 4 unexpected pass of 4 checks, at v-v-pp2",
    ),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_the_verdict_is_one_line(case):
    """It says pass or fail first; known is not pass; an unexpected pass is a failure."""
    outcomes, known, reason, line = VERDICTS[case]
    report = hostile_report("v")
    for verdict, outcome, expected in zip(report.verdicts, outcomes, known, strict=True):
        verdict.verdict, verdict.expected, verdict.reason = outcome, expected, reason
    view = ReportView(report)
    assert view.verdict == line
    assert view.good == line.startswith("PASS")


def test_nothing_judged_is_no_pass():
    """An empty report fails, and has a page."""
    empty = Report(environment={}, cells=[], verdicts=[], findings=[])
    assert not ReportView(empty).good
    assert "FAIL: nothing was judged" in render_page(empty)


def test_links_stay_from_run_to_run(record):
    """A finding's name is made of what it is: the same in the next run, letters and signs only."""
    names = [one.anchor for one in ReportView(record).findings]
    assert "finding-CON001-merged-ple-pp2-0-1-per_layer_inputs" in names
    assert len(names) == len(set(names))
    assert anchor("a", None, "b c\u202e<d>") == "a-b-c-d"


def test_the_command_shows_the_verdict_again():
    """It keeps what was measured, drops where one machine keeps things, and selects one item."""
    typed = ["suites/", "--pp", "4", "--pp-patch", "a b.diff", "-n", "2", "--pp-store=x"]
    typed += [
        "--pp-report",
        "out",
        "-k",
        "logits",
        "--pp-variant",
        "patched",
        "--pp-ignore-expected",
    ]
    kept = lasting(typed)
    assert kept == ["suites/", "--pp", "4", "--pp-patch", "a b.diff"]
    assert lasting([f"{suites_dir()}/test_pipeline.py"]) == ["suites/test_pipeline.py"]
    command = reproduce({"arguments": kept}, "logits", "patched", "patched-ple-pp4")
    assert shlex.split(command) == [
        *("pytest", *kept, "--pp-variant", "patched", "--pp-ignore-expected"),
        *("-k", "test_logits[patched-ple-pp4]"),
    ]
    assert reproduce({}, "logits", "v", "v-m-pp8-tp2").startswith("pytest suites/ --pp 8 --pp-var")


def with_floor(floor):
    """Return the page's line of max_abs where the logits verdict and its finding have `floor`."""
    report = hostile_report("m")
    (logits,) = [one for one in report.verdicts if one.check == "logits"]
    (finding,) = [one for one in report.findings if one.check == "logits"]
    if floor is not None:
        logits.figures["floor"] = finding.evidence["floor"] = floor
    page = render_page(report)
    assert ('<th scope="col">noise floor</th>' in page) == bool(floor)
    assert ("PP=1 compared with itself</dt>" in page) == (floor is not None)
    return re.search(r"largest difference of a logit</th>(.*?)</tr>", page)[1], page


def test_the_noise_floor_stands_beside_each_figure():
    """Where a verdict knows its floor, the table has it in the same line, and the finding too."""
    noisy = {"max_abs": 0.125, "relative_rms": 0.5, "rows": 4, "equal_rows": 3}
    line, page = with_floor(noisy)
    assert line == "<td>1</td><td>0.125</td>"
    assert "<li>largest difference of a logit: 0.125</li>" in page


def test_a_floor_of_equal_bits_is_said_in_words():
    """No difference between two runs of PP=1 is bit-identical, not 0; counts stay counts."""
    equal = {"max_abs": 0.0, "relative_rms": 0.0, "kl": 0.0, "top1": 1.0}
    line, page = with_floor(equal | {"rows": 4, "equal_rows": 4})
    assert line == "<td>1</td><td><bdi>bit-identical</bdi></td>"
    assert "<li>rows compared: 4</li>" in page
    # What only looks equal in numbers is not called so.
    assert with_floor(equal | {"rows": 4, "equal_rows": 3})[0] == "<td>1</td><td>0</td>"


@pytest.mark.parametrize("floor", [None, {}])
def test_no_floor_is_invented(floor):
    """A report without a floor has no column for one."""
    assert with_floor(floor)[0] == "<td>1</td>"


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(["report", "html", *map(str, arguments)])
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


def test_the_command_writes_the_page_beside_the_report(capsys, tmp_path, page):
    """`report html DIR` makes report.html and says where."""
    (tmp_path / "report.json").write_bytes((RECORD / "report.json").read_bytes())
    assert run(capsys, tmp_path) == (0, f"{tmp_path / 'report.html'}\n", "")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page


@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_no_report_is_bad_input(capsys, tmp_path, content):
    """A folder without a report, or with something else by its name, is status 2."""
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    status, out, err = run(capsys, tmp_path)
    assert (status, out) == (2, "")
    assert "report.json" in err
