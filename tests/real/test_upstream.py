"""The reports for upstream: each page shows its fault on the newest pin."""

import os
import subprocess
from pathlib import Path

import pytest
from command_blocks import blocks

from harness.assets import patches_dir
from harness.errors import BadInputError
from harness.source.environments import find_vllm
from harness.source.pin import load_pins
from harness.source.pull_request import read_patch_file
from harness.source.series import Variant
from harness.source.tree import build_tree

VERSION = "0.33.0"
UPSTREAM = Path(__file__).parents[2] / "results/upstream"
PAGES = sorted(page for page in UPSTREAM.glob("*.md") if page.stem != "README")
# A page is four engines: one page is shown in every run of the tests, all under --docs-all.
ALWAYS = "tied-heads"


@pytest.fixture(scope="module")
def vllm():
    """The release that the pages are about; skips where it is not installed."""
    try:
        return find_vllm(load_pins(patches_dir()).get(VERSION), "cpu")
    except BadInputError as error:
        pytest.skip(str(error))


def patched(page, vllm, folder):
    """The tree of the release with the patch of the page."""
    patches = read_patch_file(page.with_suffix(".patch")).patches
    return build_tree(vllm, Variant("patched", patches), folder).path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_patch_is_for_the_release(page, vllm, tmp_path):
    """A patch applies exactly to the release that the page names."""
    assert f"vLLM {VERSION}" in page.read_text()
    assert patched(page, vllm, tmp_path).is_dir()


@pytest.mark.engine
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_shows_its_fault_and_the_fix(page, vllm, tmp_path, pytestconfig):
    """The commands print what the page shows: the fault, and where it has that, the fix."""
    if page.stem != ALWAYS and not pytestconfig.getoption("--docs-all"):
        pytest.skip("all pages are for --docs-all")
    (block,) = blocks(page)
    before, *fixed = block.commands
    runs = [(before, "", 1)]
    if fixed:
        apply, after = fixed
        assert apply.line == f"git apply {page.stem}.patch"
        runs.append((after, str(patched(page, vllm, tmp_path)), 0))
    for command, tree, status in runs:
        done = subprocess.run(
            [vllm.python, *command.line.split()[1:]],
            cwd=UPSTREAM,
            # A tree names our plugin, which this Python does not have.
            env={**os.environ, "PYTHONPATH": tree, "VLLM_TARGET_DEVICE": "cpu", "VLLM_PLUGINS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert not command.missing(done.stdout), done.stdout
        assert done.returncode == status
