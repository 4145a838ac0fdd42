"""Reading and applying diffs: exactly, with `git apply` as the second opinion."""

import difflib
import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadInputError
from harness.source.diff import apply_diff, parse_diff

NAMES = "--- a/vllm/a.py\n+++ b/vllm/a.py\n"
GIT = "diff --git a/vllm/a.py b/vllm/a.py\n"
HUNK = "@@ -2,3 +2,3 @@ def f():\n two\n-three\n+THREE\n four\n"
BEFORE = "one\ntwo\nthree\nfour\nfive\n"


def apply(diff, before, patch="p.patch"):
    """Parse a diff of one file and apply it."""
    (parsed,) = parse_diff(diff, patch)
    return apply_diff(parsed, before, patch)


def test_a_change_is_applied():
    """Each hunk replaces exactly its own lines."""
    diff = NAMES + HUNK + "@@ -5 +5,2 @@\n-five\n+5\n+6\n"
    assert apply(diff, BEFORE) == "one\ntwo\nTHREE\nfour\n5\n6\n"


@pytest.mark.parametrize("names", [NAMES, GIT + "index 01ab..23cd 100644\n" + NAMES])
def test_git_and_plain_headers(names):
    """The header of git and that of diff, time stamps and missing prefixes too, name one file."""
    plain = "--- vllm/a.py\t2024-01-01 00:00:00\n+++ vllm/a.py\t2024-01-02 00:00:00\n"
    for header in (names, plain):
        (parsed,) = parse_diff(header + HUNK, "p")
        assert parsed.path == "vllm/a.py"


def test_files_are_added_and_deleted():
    """A new file must not exist yet; a deleted one must be deleted whole; empty ones count."""
    add = "--- /dev/null\n+++ b/vllm/a.py\n@@ -0,0 +1,2 @@\n+one\n+two\n"
    delete = "--- a/vllm/a.py\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-one\n-two\n"
    assert apply(add, None) == "one\ntwo\n"
    assert apply(delete, "one\ntwo\n") is None
    assert apply(GIT + "new file mode 100644\nindex 000..e69de29\n", None) == ""
    assert apply(GIT + "deleted file mode 100644\nindex e69de29..000\n", "") is None
    with pytest.raises(BadInputError, match="adds this file, but it exists"):
        apply(add, "")
    with pytest.raises(BadInputError, match="leaves lines in it"):
        apply(delete, "one\ntwo\nthree\n")
    with pytest.raises(BadInputError, match="no such file"):
        apply(delete, None)


def test_missing_last_line_feed():
    """A last line without a line feed is told from one with it, on both sides."""
    diff = NAMES + "@@ -1 +1 @@\n-one\n\\ No newline at end of file\n+one\n"
    assert apply(diff, "one") == "one\n"
    with pytest.raises(BadInputError, match="hunk 1"):
        apply(diff, "one\n")
    back = NAMES + "@@ -1 +1 @@\n-one\n+one\n\\ No newline at end of file\n"
    assert apply(back, "one\n") == "one"


@pytest.mark.parametrize("moved", ["zero\n" + BEFORE, BEFORE.partition("\n")[2]])
def test_no_offset(moved):
    """A hunk whose lines stand elsewhere is refused, and the message says where they stand."""
    with pytest.raises(BadInputError) as caught:
        apply(NAMES + HUNK, moved)
    message = str(caught.value)
    assert "p.patch: vllm/a.py: hunk 1 (@@ -2,3 +2,3 @@ def f():) does not apply" in message
    assert f"stand at line {moved.split(chr(10)).index('two') + 1}, not at line 2" in message


def test_no_fuzz():
    """One context line that differs is enough to refuse, and it is shown."""
    with pytest.raises(BadInputError, match=r"line 4 should be 'four\\n', found '4\\n'"):
        apply(NAMES + HUNK, BEFORE.replace("four", "4"))
    with pytest.raises(BadInputError, match="found the end of the file"):
        apply(NAMES + HUNK, "one\ntwo\nthree\n")


def test_landing_place_must_be_true():
    """The second number of a hunk header must say where the hunk lands."""
    with pytest.raises(BadInputError, match="says that it lands on line 3, but it lands on line 2"):
        apply(NAMES + HUNK.replace("+2,3", "+3,3"), BEFORE)


def test_no_line_feed_is_lost_inside_a_file():
    """A patch may take the line feed from the last line alone: else two lines would become one."""
    with pytest.raises(BadInputError, match="takes the line feed"):
        apply(NAMES + "@@ -1 +1 @@\n-one\n+1\n\\ No newline at end of file\n", BEFORE)


def test_hunks_in_order():
    """Hunks that overlap or stand in the wrong order are refused."""
    with pytest.raises(BadInputError, match=r"hunk 2 .* overlaps"):
        apply(NAMES + HUNK + "@@ -1 +1 @@\n-one\n+1\n", BEFORE)


def test_insertion_without_context_stays_in_the_file():
    """A hunk without context lands after the line that it names, if there is one."""
    insert = "@@ -{0},0 +{1} @@\n+new\n"
    assert apply(NAMES + insert.format(1, 2), "one\ntwo\n") == "one\nnew\ntwo\n"
    with pytest.raises(BadInputError, match="the file has only 2 lines"):
        apply(NAMES + insert.format(7, 8), "one\ntwo\n")


REFUSED = [
    (NAMES.replace("vllm/a.py", "vllm/../a.py") + HUNK, "leaves the tree"),
    (NAMES.replace("vllm/a.py", "../a.py") + HUNK, "leaves the tree"),
    (NAMES.replace("a/vllm/a.py", "/etc/a").replace("b/vllm/a.py", "/etc/a") + HUNK, "leaves"),
    (NAMES.replace("vllm/a.py", "csrc/a.cpp") + HUNK, "outside vllm/"),
    (NAMES.replace("vllm/a.py", "vllmx/a.py") + HUNK, "outside vllm/"),
    (NAMES.replace("vllm/a.py", "vllm") + HUNK, "outside vllm/"),
    (NAMES.replace("vllm/a.py", "vllm//a.py") + HUNK, "not a plain name"),
    (NAMES.replace("vllm/a.py", "vllm/./a.py") + HUNK, "not a plain name"),
    (NAMES.replace("vllm/a.py", "vllm\\a.py") + HUNK, "not a plain name"),
    (NAMES.replace("vllm/a.py", "vllm/__pycache__/a.pyc") + HUNK, "not a plain name"),
    ('--- "a/vllm/\\303.py"\n+++ "b/vllm/\\303.py"\n' + HUNK, "not a plain name"),
    ("--- a/vllm/a.py\n+++ b/vllm/b.py\n" + HUNK, "named in several ways"),
    (GIT.replace("b/vllm/a", "b/vllm/b") + NAMES + HUNK, "named in several ways"),
    (GIT + "similarity index 90%\nrename from vllm/a.py\n" + NAMES + HUNK, "a rename"),
    (GIT + "rename from vllm/a.py\nrename to vllm/b.py\n", "a rename"),
    (GIT + "copy from vllm/a.py\ncopy to vllm/b.py\n", "a rename or a copy"),
    (GIT + "old mode 100644\nnew mode 100755\n", "a change of file mode"),
    (GIT + "new file mode 120000\n" + NAMES + HUNK, "a symbolic link"),
    (GIT + "index 01..02 120000\n" + NAMES + HUNK, "a symbolic link"),
    (GIT + "new file mode 160000\n" + NAMES + HUNK, "a submodule"),
    (GIT + "index 01..02 160000\n" + NAMES + HUNK, "a submodule"),
    (GIT + "new file mode 104755\n", "file mode 104755"),
    (GIT + "index 01..02\nGIT binary patch\nliteral 1\n", "a binary change"),
    (GIT + "Binary files a/vllm/a.py and b/vllm/a.py differ\n", "a binary change"),
    (GIT + "new file mode 100755\n", "a new file of mode 100755"),
    ("Binary files a/x and b/x differ\n" + NAMES + HUNK, "stands before the diff"),
    ("--- a/vllm/b.py\nlost\n@@ -1 +1 @@\n-b\n+c\n" + NAMES + HUNK, "stands before the diff"),
    (GIT, "no change follows"),
    (GIT + "garbage\n" + NAMES + HUNK, "unexpected line 'garbage'"),
    (GIT + "new file mode 100644\n" + NAMES + HUNK, "disagree on whether the file is new"),
    (GIT + "--- a/vllm/a.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", "whether the file goes"),
    ("--- /dev/null\n+++ /dev/null\n" + HUNK, "both names"),
    ("--- /dev/null\n+++ b/vllm/a.py\n" + HUNK, "the hunk of a new file"),
    ("--- a/vllm/a.py\n+++ /dev/null\n" + HUNK, "the hunk of a deleted file"),
    ("diff --git vllm/a.py vllm/a.py\n" + NAMES + HUNK, "cannot read"),
    (NAMES, "no hunk follows"),
    (NAMES + "@@ -a +b @@\n", "cannot read the hunk header"),
    (NAMES + HUNK.replace("-2,3", f"-{'9' * 5000},3"), "cannot read the hunk header"),
    (NAMES + HUNK.replace("-2,3", "-\u0662,3"), "cannot read the hunk header"),
    (NAMES + HUNK.replace("-2,3", "-0,3"), "begins on line 0"),
    (NAMES + HUNK.replace(",3 @@", ",2 @@"), "longer than its header"),
    (NAMES + HUNK.replace("-2,3", "-2,4"), "shorter than its header"),
    (NAMES + HUNK + " five\n", "longer than its header"),
    (NAMES + "@@ -1 +1 @@\n-a\n+a\n", "changes nothing"),
    (NAMES + HUNK + NAMES + HUNK, "changed twice"),
    (NAMES + HUNK + "From 0123 Mon Sep 17\nSubject: another mail\n", "unexpected line 'From"),
    (NAMES + HUNK + "-- \n2.40\n" + NAMES + HUNK, "unexpected line|longer than"),
    (NAMES + HUNK + "-- \n2.40\nFrom 0123 Mon Sep 17\n", "unexpected line 'From"),
]


@pytest.mark.parametrize(("diff", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_is_no_plain_text_change_is_refused(diff, says):
    """Paths out of the tree, renames, modes, links, binaries and stray lines name the patch."""
    with pytest.raises(BadInputError, match=says) as caught:
        parse_diff(diff, "p.patch")
    assert str(caught.value).startswith("p.patch: line ")


LINES = st.lists(st.sampled_from(["a\n", "b\n", "\n", " \n", "-x\n", "+y\n", "\\ z\n", "-- \n"]))


@st.composite
def edits(draw):
    """Two texts that differ, and the unified diff between them."""
    before, after = draw(LINES), draw(LINES)
    context = draw(st.integers(0, 3))
    lines = difflib.unified_diff(before, after, "a/vllm/a.py", "b/vllm/a.py", n=context)
    return "".join(before), "".join(after), "".join(lines)


@given(edits())
@settings(deadline=None)
def test_what_difflib_writes_is_read_back(edit):
    """The diff of any two texts, applied to the first, gives the second."""
    before, after, diff = edit
    if before != after:
        assert apply(diff, before) == after


@given(edits(), LINES)
@settings(max_examples=30, deadline=None)
def test_git_agrees(tmp_path_factory, edit, other):
    """On any text, we refuse, or give what `git apply` gives; on the right text we never refuse."""
    before, _, diff = edit
    if not diff:
        return
    for text in (before, "".join(other)):
        root = tmp_path_factory.mktemp("git")
        (root / "vllm").mkdir()
        (root / "vllm/a.py").write_text(text, newline="")
        try:
            ours = apply(diff, text)
        except BadInputError:
            assert text != before
            continue
        # git wants to be told that hunks without context are meant
        subprocess.run(
            ["git", "apply", "--unidiff-zero", "-"],
            input=diff.encode(),
            cwd=root,
            check=True,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(root.parent)},
        )
        assert (root / "vllm/a.py").read_text() == ours
