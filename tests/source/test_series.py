"""Reading series: what is read, and that everything odd ends in one clear error."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadInputError
from harness.source.series import apply_patches, load_patch, load_series

HEADER = """\
Subject: Models: greet twice
Variant: greet
Upstream: https://example.com/pull/1
Pins: 1.2.3, 1.2.4
Remove-when: the pin is
  1.3.0 or newer

One greeting is not enough.

Two are.
"""
DIFF = """\
diff --git a/vllm/a.py b/vllm/a.py
--- a/vllm/a.py
+++ b/vllm/a.py
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
"""
SECOND = DIFF.replace("-two", "-TWO").replace("+TWO", "+deux")


def write_series(folder, order, **patches):
    """Write a series; `patches` names each file without its suffix."""
    folder.mkdir(exist_ok=True)
    if order is not None:
        (folder / "series").write_text(order)
    for name, text in patches.items():
        path = folder / f"{name.replace('_', '-')}.patch"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def error_of(function, *arguments):
    """Return the text of the BadInputError that the call ends in: one line, no more."""
    with pytest.raises(BadInputError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_header_and_body_are_read(tmp_path):
    """A patch tells its subject, reason, upstream, pins, and when it can go, folded lines too."""
    folder = write_series(
        tmp_path / "s", "p.patch\n", p=HEADER + "---\n vllm/a.py | 1 +\n\n" + DIFF
    )
    (patch,) = load_series(folder).patches
    assert patch.subject == "Models: greet twice"
    assert patch.variant == "greet"
    assert patch.upstream == "https://example.com/pull/1"
    assert patch.pins == ("1.2.3", "1.2.4")
    assert patch.remove_when == "the pin is 1.3.0 or newer"
    assert patch.why == "One greeting is not enough.\n\nTwo are."
    assert patch.digest == hashlib.sha256((folder / "p.patch").read_bytes()).hexdigest()
    assert [diff.path for diff in patch.files] == ["vllm/a.py"]


def test_plain_diff_needs_no_header(tmp_path):
    """A diff without any header is a patch too; its variant is named by its file."""
    write_series(tmp_path, "0007-My_fix v2.patch", **{"x": DIFF})
    (tmp_path / "x.patch").rename(tmp_path / "0007-My_fix v2.patch")
    (patch,) = load_series(tmp_path).patches
    assert (patch.subject, patch.why, patch.pins) == ("", "", ())
    assert patch.variant == "My_fix-v2"


def test_git_mail_is_read(tmp_path):
    """A mail of `git format-patch` is a patch: its tag is dropped, its signature stepped over."""
    mail = (
        "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n"
        "From: A <a@example.com>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n"
        "Subject: [PATCH 1/2] Greet\n\nBecause.\n---\n vllm/a.py | 2 +-\n 1 file changed\n\n"
        f"{DIFF}-- \n2.40.0\n\n"
    )
    write_series(tmp_path, "p.patch", p=mail)
    (patch,) = load_series(tmp_path).patches
    assert (patch.subject, patch.why) == ("Greet", "Because.")


def test_every_prefix_is_a_variant(tmp_path):
    """The variants are no patch, the first, the first two, each named by the patch it adds."""
    write_series(
        tmp_path,
        "# a comment\n\n0001-one.patch   # applied first\n0002-two.patch\n",
        **{"0001_one": DIFF, "0002_two": "Variant: deux\n\n" + SECOND},
    )
    series = load_series(tmp_path)
    assert [(v.name, len(v.patches)) for v in series.variants()] == [
        ("base", 0),
        ("one", 1),
        ("deux", 2),
    ]
    assert series.name == tmp_path.name


def test_later_patches_see_what_earlier_ones_left(tmp_path):
    """A patch applies to the file as the patches before it left it."""
    write_series(tmp_path, "a.patch\nb.patch", a=DIFF, b=SECOND)
    patches = load_series(tmp_path).patches
    assert apply_patches(patches, {"vllm/a.py": b"one\ntwo\nthree\n"}.get) == {
        "vllm/a.py": b"one\ndeux\nthree\n"
    }
    swapped = error_of(apply_patches, patches[::-1], {"vllm/a.py": b"one\ntwo\nthree\n"}.get)
    assert "b.patch: vllm/a.py: hunk 1" in swapped


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ("", "empty"),
        ("# only a comment\n", "lists no patch"),
        ("p.patch\np.patch\n", "line 2: 'p.patch' is listed twice"),
        ("p.patch\nq.patch\n", "line 2: 'q.patch' is not in this folder"),
        ("../p.patch\n", "'../p.patch' is not the name of a file in this folder"),
        ("/etc/p.patch\n", "is not the name of a file in this folder"),
        ("sub\\p.patch\n", "is not the name of a file in this folder"),
        ("p.patch -p1\n", "does not end in .patch or .diff"),
        ("p.txt\n", "does not end in .patch or .diff"),
        ("..\n", "does not end in .patch or .diff"),
        ("p.patch\r\n", "carriage return"),
        ("\ufeffp.patch\n", "is not the name of a file in this folder"),
        ("p.patch\0\n", "is not the name of a file in this folder"),
    ],
)
def test_bad_order_file(tmp_path, order, says):
    """An order file that does not plainly list files of its folder is refused, naming the line."""
    write_series(tmp_path, order, p=DIFF)
    message = error_of(load_series, tmp_path)
    assert says in message
    assert str(tmp_path / "series") in message


def test_order_file_must_be_there(tmp_path):
    """A folder without an order file, and a folder that is not there, are refused by name."""
    assert "no order file" in error_of(load_series, tmp_path)
    assert "gone: no such folder" in error_of(load_series, tmp_path / "gone")
    assert "nowhere" in error_of(load_series, tmp_path / "nowhere")


def test_order_file_must_be_text(tmp_path):
    """An order file that is not UTF-8 is refused, naming the line."""
    write_series(tmp_path, None, p=DIFF)
    (tmp_path / "series").write_bytes(b"p.patch\n\xff\xfe\n")
    assert "line 2: not UTF-8" in error_of(load_series, tmp_path)


def test_unlisted_patch_is_not_ignored(tmp_path):
    """A patch that lies in the folder but is not listed is an error, not a patch left out."""
    write_series(tmp_path, "p.patch\n# q.patch\n", p=DIFF, q=SECOND)
    assert "does not list q.patch" in error_of(load_series, tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        (b"Subject: no diff follows\n", "holds no diff"),
        (DIFF.replace("\n", "\r\n").encode(), "line 1: has a carriage return"),
        (DIFF.encode().replace(b"TWO", b"\xff"), "line 7: not UTF-8"),
        (b"\x00\x01\x02" * 100, "holds no diff"),
        (b"Variant: a\nVariant: b\n\n" + DIFF.encode(), "two Variant headers"),
        (b"Variant: ../../x\n\n" + DIFF.encode(), "Variant '../../x' may hold only"),
        (b"Variant: base\n\n" + DIFF.encode(), "a second variant named 'base'"),
    ],
)
def test_bad_patch_file(tmp_path, content, says):
    """A patch file that is empty, not text, without a diff or oddly named is refused by name."""
    write_series(tmp_path, "p.patch", p=content)
    message = error_of(load_series, tmp_path)
    assert says in message
    assert str(tmp_path / "p.patch") in message


def test_two_variants_of_one_name(tmp_path):
    """Variants are called by name, so two of one name are refused."""
    write_series(tmp_path, "0001-a.patch\n0002-a.patch", **{"0001_a": DIFF, "0002_a": SECOND})
    assert "a second variant named 'a'" in error_of(load_series, tmp_path)


def test_unreadable_patch(tmp_path):
    """A listed name that is a folder is refused, not followed."""
    (tmp_path / "series").write_text("p.patch")
    (tmp_path / "p.patch").mkdir()
    assert "'p.patch' is not in this folder" in error_of(load_series, tmp_path)


def test_target_must_be_text(tmp_path):
    """A patch to a file that is not text is refused, naming both."""
    write_series(tmp_path, "p.patch", p=DIFF)
    message = error_of(apply_patches, load_series(tmp_path).patches, {"vllm/a.py": b"\xff"}.get)
    assert "p.patch: vllm/a.py: the file is not UTF-8" in message


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Give one folder to all examples: making one for each takes longer than the reading."""
    return tmp_path_factory.mktemp("s")


@given(data=st.binary(max_size=300) | st.text(max_size=300).map(lambda s: s.encode("utf-8")))
@settings(deadline=None)  # a busy machine is no failure
def test_any_bytes_end_in_a_clear_error(folder, data):
    """Whatever bytes stand where a patch or an order file should, the answer is BadInputError."""
    (folder / "p.patch").write_bytes(data)
    (folder / "series").write_bytes(data)
    for function, path in ((load_patch, folder / "p.patch"), (load_series, folder)):
        with pytest.raises(BadInputError):
            function(path)


@given(st.lists(st.sampled_from((HEADER + DIFF).split("\n")), max_size=30))
@settings(deadline=None)  # a busy machine is no failure
def test_shuffled_lines_of_a_patch_are_read_or_refused(folder, lines):
    """Lines of a real patch in any order are a patch or a BadInputError, never another error."""
    path = folder / "p.patch"
    path.write_text("\n".join(lines))
    try:
        patch = load_patch(path)
    except BadInputError as error:
        assert str(path) in str(error)  # noqa: PT017 -- either outcome is right
    else:
        assert {diff.path for diff in patch.files} == {"vllm/a.py"}
