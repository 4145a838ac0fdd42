"""The pages: every command runs, what they show is what it prints, and the reference is whole."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkouts import release_checkout
from command_blocks import PAGES, ROOT, Command, blocks, unmarked

from harness.assets import patches_dir
from harness.cli.main import _COMMANDS
from harness.plan.options import declarations
from harness.source.pin import load_pins, locate_vllm

LIMIT = 1800  # seconds for one command


def pytest_generate_tests(metafunc):
    """One item for each page that has commands to run."""
    if "kinds" in metafunc.fixturenames:
        everything = metafunc.config.getoption("--docs-all")
        kinds = ("short", "long") if everything else ("short",)
        pages = [
            pytest.param(page, kinds, id=page.name)
            for page in PAGES
            if any(one.kind == "run" and one.what in kinds for one in blocks(page))
        ]
        metafunc.parametrize(("page", "kinds"), pages)


@pytest.fixture
def sandbox(page, tmp_path):
    """A folder as a page assumes it: a checkout of ours, and one of vLLM in ~/src/vllm."""
    work = tmp_path / "pp-harness"
    work.mkdir()
    for path in ROOT.iterdir():
        if path.name not in ("tests", ".git", ".tox"):
            (work / path.name).symlink_to(path)
    if "~/src/vllm" in page.read_text(encoding="utf-8"):
        installed = locate_vllm(load_pins(patches_dir()).default)
        release_checkout(tmp_path / "src" / "vllm", installed)
    return work


def run(line, work):
    """Run a command line of a page as its reader would; return status and output."""
    environment = {
        **os.environ,
        "HOME": str(work.parent),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": os.environ.get("PP_DOCS_CACHE", str(work.parent / "cache")),
        "COLUMNS": "100",
    }
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    return done.returncode, done.stdout


@pytest.mark.vllm
def test_commands(page, kinds, sandbox):
    """In order, on one folder: each ends as the page says and prints what the page shows."""
    for block in blocks(page):
        if block.kind == "file":
            target = sandbox / block.what
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
        elif block.what in kinds:
            *first, last = block.commands
            for command in (*first, last):
                status, output = run(command.line, sandbox)
                expected = block.status if command is last else 0
                assert status == expected, f"{command.line}\n{output}"
                assert not command.missing(output), f"{command.line}\n{output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_a_run(page):
    """No command stands on a page that nothing runs."""
    assert unmarked(page) == [], "a command needs a marked block: see tests/command_blocks.py"
    for block in blocks(page):
        if block.kind == "run" and block.what.startswith("by "):
            assert (ROOT / block.what[3:]).exists(), block.what
        elif block.kind == "run":
            assert block.what in ("short", "long", "gpu"), block.what
            assert block.commands, block.text


def test_what_is_shown_is_looked_for():
    """A shown line that is not printed, or in another order, is found; times may differ."""
    command = Command("x", ("o[...]", "[...]", "== 3 passed in 1.00s ==", "two"))
    assert command.missing("one\nelse\n=== 3 passed in 9.99s ===\ntwo\n") == []
    assert command.missing("one\n=== 3 passed in 9.99s ===\n") == ["two"]
    assert command.missing("two\none\n== 3 passed in 2.00s ==\n") == ["two"]


def test_reference_is_whole():
    """The generated pages hold every option of the plugin and every command with its own help."""
    from tools.reference import commands_page, options_page

    declared = [option.flag for _, option in declarations()]
    assert re.findall(r"^\| `(--pp[a-z0-9-]*)", options_page(), re.MULTILINE) == declared
    page = commands_page()
    for name in _COMMANDS:
        assert f"## pp-harness {name}\n" in page
    assert "## pp-harness report trend\n" in page
