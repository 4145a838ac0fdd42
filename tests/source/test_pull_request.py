"""Patch files as they are downloaded: what is kept, what is skipped, what is refused."""

import subprocess
import time

import pytest
from checkouts import FILES, Checkout

from harness.errors import BadInputError
from harness.source.pull_request import read_patch_file
from harness.source.series import Variant
from harness.source.tree import build_tree

CHANGE = (
    "diff --git a/vllm/a.py b/vllm/a.py\nindex 1111111..2222222 100644\n"
    "--- a/vllm/a.py\n+++ b/vllm/a.py\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n"
)
DOCS = (
    "diff --git a/docs/x.md b/docs/x.md\n--- a/docs/x.md\n+++ b/docs/x.md\n"
    "@@ -1,2 +1,2 @@\n--- a/vllm/a.py\n+++ b/vllm/a.py\n same\n"
)
RENAME = (
    "diff --git a/{0}/a.py b/{0}/c.py\nsimilarity index 100%\n"
    "rename from {0}/a.py\nrename to {0}/c.py\n"
)
BINARY = (
    "diff --git a/docs/x.png b/docs/x.png\nindex 1111111..2222222 100644\n"
    "GIT binary patch\nliteral 3\nKcmZQzU|?Wi00031\n\nliteral 0\nHcmV?d00001\n\n"
)
MODE = "diff --git a/tools/x.sh b/tools/x.sh\nold mode 100644\nnew mode 100755\n"
CSRC = CHANGE.replace("vllm/a.py", "csrc/ops.cu")
PLAIN = (
    "--- vllm/a.py\t2026-01-01\n+++ vllm/a.py\t2026-01-02\n"
    "@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"
)


@pytest.fixture
def read(tmp_path):
    """Give a function that writes a patch file and reads it."""

    def read(content, name="fix.diff"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_patch_file(path)

    return read


def files_of(patch_file):
    """Return the names of the changed files, a list for each patch."""
    return [[diff.path for diff in patch.files] for patch in patch_file.patches]


@pytest.fixture
def checkout(tmp_path):
    """Give a tiny vLLM repository with its first commit."""
    checkout = Checkout(tmp_path / "vllm").init()
    checkout.commit(FILES)
    return checkout


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("other", [DOCS, RENAME.format("tests"), BINARY, MODE])
def test_what_is_outside_vllm_is_skipped_by_name(read, other, where):
    """Text, renames, binary files and modes outside vllm/ neither stop the rest nor go unsaid."""
    patch_file = read(other + CHANGE if where == "before" else CHANGE + other)
    assert files_of(patch_file) == [["vllm/a.py"]]
    assert patch_file.skipped in {("docs/x.md",), ("tests/c.py",), ("docs/x.png",), ("tools/x.sh",)}


def test_hunks_that_look_like_headers_are_content(read):
    """A removed line `-- a/x` is not taken for the beginning of another file."""
    assert files_of(read(CHANGE + DOCS)) == [["vllm/a.py"]]


def test_odd_bytes_outside_vllm_do_not_matter(read):
    """Files outside vllm/ may be in any encoding and have any line end."""
    assert read(CHANGE.encode() + DOCS.replace("same", "\xff\r").encode("latin-1")).skipped


def test_each_mail_is_a_patch_and_they_apply_in_order(site, checkout, tmp_path):
    """Several commits on one file, as GitHub's .patch has them, give the file of the last one."""
    checkout.commit({"vllm/a.py": "one\nTWO\nthree\n"}, "First: ünïcode")
    checkout.commit({"docs/readme.md": "more\n"}, "Docs alone")
    checkout.commit({"vllm/a.py": "one\nTWO\nTHREE\n", "vllm/n.py": "n = 1\n"}, "Third")
    path = tmp_path / "fix.patch"
    path.write_text(checkout.git("format-patch", "--stdout", "HEAD~3") + "\n")
    patch_file = read_patch_file(path)
    assert files_of(patch_file) == [["vllm/a.py"], ["vllm/a.py", "vllm/n.py"]]
    assert patch_file.skipped == ("docs/readme.md",)
    site.install()
    tree = build_tree(
        site.locate(), Variant("patched", patch_file.patches), tmp_path / "cache"
    ).path
    assert (tree / "vllm/a.py").read_text() == "one\nTWO\nTHREE\n"
    assert (tree / "vllm/n.py").read_text() == "n = 1\n"


def test_git_agrees_with_what_is_applied(checkout, site, tmp_path):
    """A diff that `git diff` writes and `git apply` takes gives the same files through ours."""
    text = "".join(f"line {number}\n" for number in range(60))
    checkout.commit({"vllm/a.py": text})
    changed = text.replace("line 3\n", "").replace("line 40\n", "line 40\nline 40b\n")
    checkout.write("vllm/a.py", changed)
    path = tmp_path / "fix.diff"
    path.write_text(checkout.git("diff") + "\n")
    site.install(files={"vllm/__init__.py": "", "vllm/a.py": text})
    variant = Variant("patched", read_patch_file(path).patches)
    tree = build_tree(site.locate(), variant, tmp_path / "cache").path
    assert (tree / "vllm/a.py").read_text() == changed
    subprocess.run(["git", "-C", checkout.path, "apply", "-R", "--check", path], check=True)


def test_an_offset_is_refused_with_the_fix(read, site, tmp_path):
    """A hunk that would fit at another line is refused, and nothing is built."""
    site.install(files={"vllm/__init__.py": "", "vllm/a.py": "zero\none\ntwo\nthree\n"})
    variant = Variant("patched", read(CHANGE).patches)
    with pytest.raises(BadInputError, match=r"offset is not accepted; .*rebase it onto"):
        build_tree(site.locate(), variant, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


REFUSED = {
    "empty": ("", "holds no diff"),
    "a web page": ("<!DOCTYPE html>\n<html>\n", "holds no diff"),
    "UTF-16": (CHANGE.encode("utf-16"), "holds no diff"),
    "nothing for vLLM": (DOCS, r"changes nothing below vllm/ \(only docs/x.md\)"),
    "compiled code": (CHANGE + CSRC, r"changes compiled code \(csrc/ops.cu\).*build and install"),
    "kernel in tests": (CHANGE + CSRC.replace("csrc/", "tests/"), "changes compiled code"),
    "rename": (RENAME.format("vllm"), "a rename or a copy; make the diff with.*--no-renames"),
    "carriage returns": (CHANGE.replace("\n", "\r\n"), "carriage return"),
    "odd bytes": (CHANGE.encode().replace(b"TWO", b"\xff"), "not UTF-8"),
    "binary": (BINARY.replace("docs/x.png", "vllm/x.png"), "a binary change"),
    "lost header": (CHANGE.split("+++ b/vllm/a.py\n")[1] + CHANGE, "stands before the diff"),
    "cut short": (CHANGE.removesuffix(" three\n"), "shorter than its header says"),
    "no git": (PLAIN, "line 2: .* looks like a part of it; .* as `git diff` writes it"),
    "twice": (CHANGE + CHANGE, "changed twice"),
    "no prefix": (CHANGE.replace("a/vllm", "vllm").replace("b/vllm", "vllm"), "after a/ and b/"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_files_are_refused_with_the_fix(read, case):
    """An unusable file ends in one error that names it."""
    content, words = REFUSED[case]
    with pytest.raises(BadInputError, match=words) as refused:
        read(content)
    assert "fix.diff" in str(refused.value)


def test_errors_name_the_line_of_the_file(read):
    """The number in an error is the line of the downloaded file, skipped parts counted."""
    broken = CHANGE.replace("index 1111111..2222222 100644", "old mode 100644")
    with pytest.raises(BadInputError, match=r"line 9: a change of file mode"):
        read(DOCS + broken)


def test_a_large_file_is_read_in_time_that_grows_with_it(read):
    """Vendored files make pull requests of 200,000 lines; reading one takes a moment."""
    lines = "+line\n" * 200_000
    large = (
        f"diff --git a/docs/x b/docs/x\n--- /dev/null\n+++ b/docs/x\n@@ -0,0 +1,200000 @@\n{lines}"
    )
    began = time.process_time()
    assert read(large + CHANGE + ("\n" * 20)).skipped == ("docs/x",)
    assert time.process_time() - began < 5


def test_a_file_that_is_not_there_is_refused(tmp_path):
    """A path that leads nowhere is named."""
    with pytest.raises(BadInputError, match=r"gone\.diff: cannot be read"):
        read_patch_file(tmp_path / "gone.diff")
