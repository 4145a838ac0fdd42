"""The README names what is there."""

import re
from pathlib import Path

import pytest

from harness.cli.main import _COMMANDS
from harness.plan.options import declarations

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_option_of_the_plugin_is_named():
    """No option is left for --help alone, and none is named that is gone."""
    options = {option.flag for _, option in declarations()}
    assert options == set(re.findall(r"--pp\b[a-z0-9-]*", README))


def test_every_command_is_in_the_table():
    """The index of the command line and the README list the same commands."""
    table = README.split("| command | what it does |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)", table, re.MULTILINE)) == set(_COMMANDS)


PAGES = [
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"),
    *(
        path.relative_to(ROOT).as_posix()
        for folder in ("docs", "results")
        for path in sorted((ROOT / folder).rglob("*.md"))
    ),
]


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_exist(page):
    """A relative link, or a page of docs/ or results/ that the text names, leads somewhere."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^):#]+)(?:#[\w-]*)?\)", text)
    named = re.findall(r"\b(?:docs|results)/[\w./-]*\w", text)
    missing = [name for name in links if not (ROOT / page).parent.joinpath(name).is_file()]
    assert missing + [name for name in named if not (ROOT / name).exists()] == []


def test_every_section_of_benchmarks_says_when_it_was_measured():
    """A figure without its commit and day passes for one of today's code."""
    page = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    recorded = re.compile(r"Recorded at [0-9a-f]{7}, \d{4}-\d\d-\d\d")
    assert [each.partition("\n")[0] for each in sections if not recorded.search(each)] == []
