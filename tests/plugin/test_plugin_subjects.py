"""`--pp-patch` and `--pp-vllm`: their variants, what is said of them, and what is refused."""

import json

import pytest
from checkouts import FILES, Checkout

CHANGE = (
    "diff --git a/vllm/a.py b/vllm/a.py\n--- a/vllm/a.py\n+++ b/vllm/a.py\n"
    "@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n"
)
DOCS = CHANGE.replace("vllm/a.py", "docs/a.md")
RUN = ("--pp", "2", "--pp-model", "ple")


@pytest.fixture
def patch(pytester):
    """Write a patch file that also touches the docs."""
    path = pytester.path / "fix.diff"
    path.write_text(DOCS + CHANGE)
    return path


@pytest.fixture
def checkout(pytester):
    """Make a checkout of release 0.20.2 with a change."""
    checkout = Checkout(pytester.path / "vllm").init()
    checkout.commit(FILES)
    checkout.git("tag", "v0.20.2")
    checkout.write("vllm/a.py", "changed\n")
    return checkout


def test_a_patch_file_is_judged_beside_the_release(suite, patch):
    """Base is the release, whose known findings are expected; what is skipped is in the header."""
    result = suite(*RUN, "--pp-patch", patch, "--pp-report", "out", "-k", "engine")
    result.assert_outcomes(xfailed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "pp-harness: vLLM 0.20.2, patch fix.diff (base patched), models ple, PP 2 against 1",
            "pp-harness: fix.diff: skipped, outside vllm/: docs/a.md",
        ]
    )
    environment = json.loads((suite.pytester.path / "out/report.json").read_text())["environment"]
    assert environment["series"] == "fix.diff"
    assert list(environment["patches"]) == ["fix.diff"]


def test_a_checkout_is_judged_as_it_is(suite, checkout):
    """Nothing is expected of a checkout: its base is no release, so that a finding is a failure."""
    result = suite(*RUN, "--pp-vllm", checkout.path, "--pp-report", "out", "-k", "engine")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "pp-harness: vLLM 0.20.2, checkout vllm (base worktree), models ple, PP 2 against 1",
            "pp-harness: vllm: base is * left main), compiled files of vLLM 0.20.2",
        ]
    )
    environment = json.loads((suite.pytester.path / "out/report.json").read_text())["environment"]
    assert list(environment["patches"]) == ["base", "HEAD", "worktree"]
    # Shards of one sweep share the notes: no machine's folder is in them.
    assert str(checkout.path) not in str(environment["notes"])


def test_a_checkout_without_changes_says_so(suite, checkout):
    """A clean checkout runs, and the header says that both variants are one."""
    checkout.git("checkout", "-q", "vllm/a.py")
    result = suite(*RUN, "--pp-vllm", checkout.path, "--collect-only")
    result.stdout.fnmatch_lines(["*the work tree changes nothing in vllm/ since its base"])
    assert result.ret == 0


def test_one_variant_can_be_chosen(suite, checkout):
    """--pp-variant worktree leaves base out."""
    result = suite(*RUN, "--pp-vllm", checkout.path, "--pp-variant", "worktree", "-k", "engine")
    result.assert_outcomes(passed=1)


REFUSED = {
    "series and patch": (
        ["--pp-series", "s", "--pp-patch", "fix.diff"],
        "--pp-series and --pp-patch exclude each other",
    ),
    "all three": (
        ["--pp-series", "s", "--pp-patch", "fix.diff", "--pp-vllm", "vllm"],
        "--pp-series and --pp-patch and --pp-vllm exclude each other",
    ),
    "base alone": (["--pp-base", "main"], "--pp-base is for a checkout; give --pp-vllm DIR"),
    "version alone": (["--pp-base-version", "0.20.2"], "--pp-base-version is for a checkout"),
    "base of a patch": (["--pp-patch", "fix.diff", "--pp-base", "main"], "is for a checkout"),
    "no patch": (["--pp-patch", "gone.diff"], "gone.diff: cannot be read"),
    "no diff": (["--pp-patch", "conftest.py"], "holds no diff"),
    "no checkout": (["--pp-vllm", "gone"], "gone: no such folder"),
    "no vLLM": (["--pp-vllm", "other"], "not a vLLM tree"),
    "revision": (["--pp-vllm", "vllm", "--pp-base", "gone"], "has no commit 'gone'"),
    "release": (["--pp-vllm", "vllm", "--pp-base-version", "0.1"], "no pin for vLLM 0.1; known"),
    "variant": (["--pp-vllm", "vllm", "--pp-variant", "x"], "checkout vllm has base, worktree"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_clear_line(suite, patch, checkout, case):
    """Bad input ends with status 4 and one line, before anything is collected."""
    options, words = REFUSED[case]
    suite.pytester.makeconftest("")
    Checkout(suite.pytester.path / "other").init()
    result = suite(*RUN, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in result.stderr.lines if line.startswith("ERROR")]
    assert len(errors) == 1
    assert words in errors[0]
