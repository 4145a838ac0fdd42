"""Markdown and terminal: what they say, and that hostile text does nothing in either."""

import pytest
from hostile import ACTING, ALL, hostile_report
from markdown_it import MarkdownIt

from harness.report.markdown import block, render_markdown, text
from harness.report.records import ItemRecord
from harness.report.terminal import explain, finding_lines


def tokens(markdown):
    """Return every token of a text as a reader that allows HTML and tables sees it."""
    found = []
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown):
        found += [token, *(token.children or ())]
    return found


def items(report):
    """Return the report's verdicts as items, each with its findings."""
    return [
        ItemRecord(
            verdict=verdict,
            findings=[one for one in report.findings if one.check == verdict.check],
            cells=[],
        )
        for verdict in report.verdicts
    ]


def test_hostile_text_is_text_in_markdown():
    """No link, image, mention, heading or HTML but ours comes out of a report's text."""
    written = render_markdown(hostile_report())
    assert not ACTING & set(written)
    found = tokens(written)
    assert not [t for t in found if t.type in ("link_open", "image", "html_inline")]
    html = [t.content for t in found if t.type == "html_block"]
    assert all(one.startswith(("<details><summary>1 known", "</details>")) for one in html)
    assert [t.tag for t in found if t.type == "heading_open"] == ["h2", "h3"]
    shown = [t.content for t in found if t.type == "text"]
    assert not [one for one in shown if "@pwned" in one]
    assert any("<script>window.pwned" in one for one in shown)
    assert len(written.encode()) < 2**20


@pytest.mark.parametrize("value", [ALL, "a`b``c```d", "", "\\", "| a\n| b"])
def test_text_is_shown_as_it_is(value):
    """What Markdown shows is the printable text on one line, whatever signs it has."""
    from harness.report.text import one_line

    (paragraph,) = [t for t in tokens("x " + text(value)) if t.type == "inline"]
    shown = "".join(c.content for c in paragraph.children).replace("\u200b", "")
    assert shown == ("x " + one_line(value, 600)).rstrip()


def test_a_block_cannot_be_left():
    """A fence is longer than any run of backquotes in what it holds."""
    found = tokens("\n".join(block("a\n`````\n<b>")))
    assert [(t.type, t.content) for t in found] == [("fence", "a\n`````\n<b>\n")]


def test_known_findings_are_folded_and_the_others_are_not():
    """The findings that fail stand open with their fix and command, known ones in details."""
    written = render_markdown(hostile_report("tame"))
    opened, _, folded = written.partition("<details>")
    assert opened.startswith("## ❌ FAIL\\: 3 fail of 4 checks")
    assert "| tame · tame · PP 2 | ✗ fail | ✗ fail (known) | ✗ fail | ✗ fail |" in opened
    assert opened.count("**CON001**") == 3
    assert folded.count("**CON001**") == 1
    assert "pytest suites/ --pp 2 --pp-model tame --pp-variant tame" in opened
    assert "PP=1: »a« tame" in opened


def test_hostile_text_is_text_in_the_terminal():
    """No escape, no turn of the order of text, no line of its own."""
    report = hostile_report()
    lines = [*finding_lines(report), *(explain(item, ALL) for item in items(report))]
    assert not ACTING & set("".join(lines))
    assert all("\n" not in line for line in finding_lines(report))
    assert "\\x1b[2J" in lines[0]


def test_findings_are_a_line_each_and_counted():
    """Point, code and message, the place at the end; known ones are counted, not listed."""
    report = hostile_report("tame")
    report.findings[0].place = "vllm/m.py:3"
    assert finding_lines(report) == [
        "tame-tame-pp2: CON001 tame (vllm/m.py:3)",
        "tame-tame-pp2: CON001 tame (tame)",
        "tame-tame-pp2: CON001 tame (tame)",
        "3 of 4 checks fail; 1 known, see expected.toml.",
    ]


def test_nothing_to_list_is_said():
    """A run without a finding ends in one line."""
    report = hostile_report("tame")
    for verdict in report.verdicts:
        verdict.verdict, verdict.expected, verdict.reason = "pass", False, ""
    assert finding_lines(report) == ["No finding in 4 checks."]


def test_an_unexpected_pass_or_blocked_check_gives_its_reason():
    """A check that fails without a finding of its own says why in one line."""
    report = hostile_report("tame")
    report.findings.clear()
    verdict = report.verdicts[0]
    verdict.verdict, verdict.reason = "pass", "unexpected pass: LOG001, remove it"
    line = f"tame-tame-pp2: {verdict.check} unexpected pass: LOG001, remove it"
    assert finding_lines(report)[0] == line


def test_a_failure_is_a_sentence_with_evidence():
    """The reason comes first, then where, the numbers, one changed answer and the fix."""
    report = hostile_report("tame")
    (record,) = [one for one in items(report) if one.verdict.check == "accuracy"]
    record.findings[0].evidence |= {"lost": 3, "p_value": 0.0312512}
    assert explain(record, "tame falls").split("\n") == [
        "tame falls",
        "  CON001: stage 1, boundary 0->1, tame, tame",
        "  evidence: lost 3, p_value 0.03125",
        "  asked: tame",
        "  PP=1:  a tame",
        "  here:  b tame",
        "  fix: tame",
    ]
