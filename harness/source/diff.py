"""Read a unified diff and apply it exactly: no fuzz, no offset, no file outside `vllm/`.

`git apply` moves a hunk by any number of lines without a word, and diff libraries skip lines that
they do not know, renames and mode changes among them. A harness that reports what it ran can allow
neither, so this reader knows the few lines that a text change needs and refuses all others.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from ..errors import BadInputError

_GIT_HEADER = re.compile(r"diff --git a/(?P<old>.+) b/(?P<new>.+)")
_HUNK_HEADER = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(?: .*)?", re.ASCII)
# More digits than any file has lines, fewer than Python refuses to read.
_MOST_DIGITS = 9
_INDEX = re.compile(r"index [0-9a-f]+\.\.[0-9a-f]+(?: (?P<mode>\d+))?")
_FILE_MODE = re.compile(r"(?P<kind>new|deleted) file mode (?P<mode>\d+)")
_DEV_NULL = "/dev/null"
_REGULAR_MODES = ("100644", "100755")
_OTHER_MODES = {"120000": "a symbolic link", "160000": "a submodule"}
# A line of a message that begins so is a piece of a diff that was not recognised as one.
_DIFF_PIECES = ("@@ -", "--- ", "+++ ", "GIT binary patch", "Binary files ", "rename ", "copy ")
_REFUSED = (
    (("rename ", "copy ", "similarity index", "dissimilarity index"), "a rename or a copy"),
    (("old mode ", "new mode "), "a change of file mode"),
    (("GIT binary patch", "Binary files "), "a binary change"),
)


@dataclass(frozen=True)
class Hunk:
    """One hunk: the lines it replaces and the lines it leaves, each with its line end."""

    number: int
    header: str
    old_start: int
    old: tuple[str, ...]
    new_start: int
    new: tuple[str, ...]


@dataclass(frozen=True)
class FileDiff:
    """The change of a patch to one file below `vllm/`."""

    path: str
    kind: Literal["change", "add", "delete"]
    hunks: tuple[Hunk, ...]


def message_of(text: str) -> str:
    """Return the message that stands before the diff.

    It ends where mail puts `---` and a diffstat, if it has that.
    """
    lines = text.split("\n")
    ends = (i for i, line in enumerate(lines) if line == "---" or _starts_file(lines, i))
    return "\n".join(lines[: next(ends, None)])


def parse_diff(text: str, patch: str, first_line: int = 1) -> tuple[FileDiff, ...]:
    """Read the changes of the diff in `text`, file by file; lines before the diff are skipped.

    `first_line` is the number of the text's first line in the file that it was taken from. Raises
    `BadInputError`, naming `patch` and the line, for anything but plain text changes of files
    below `vllm/`.
    """
    return _Parser(text, patch, first_line).parse()


def apply_diff(diff: FileDiff, before: str | None, patch: str) -> str | None:
    """Return the text of the file after `diff`, None where the file is deleted.

    `before` is None where the file does not exist. Raises `BadInputError`, naming `patch`, the
    file and the hunk, unless each hunk fits at exactly the line that it names.
    """
    where = f"{patch}: {diff.path}"
    if diff.kind == "add":
        if before is not None:
            raise BadInputError(f"{where}: the patch adds this file, but it exists")
        return _join([line for hunk in diff.hunks for line in hunk.new], where)
    if before is None:
        raise BadInputError(f"{where}: no such file in the tree that the patch applies to")
    after = _apply_hunks(diff, _lines(before), where)
    if diff.kind == "delete":
        if after:
            raise BadInputError(f"{where}: the patch deletes this file but leaves lines in it")
        return None
    return _join(after, where)


def _join(lines: list[str], where: str) -> str:
    if any(not line.endswith("\n") for line in lines[:-1]):
        raise BadInputError(f"{where}: the patch takes the line feed from a line inside the file")
    return "".join(lines)


def _apply_hunks(diff: FileDiff, before: list[str], where: str) -> list[str]:
    after: list[str] = []
    done = 0
    for hunk in diff.hunks:
        at = _index(hunk.old_start, hunk.old)
        place = f"{where}: hunk {hunk.number} ({hunk.header})"
        if at < done:
            raise BadInputError(f"{place} overlaps the hunk before it")
        if at > len(before) or before[at : at + len(hunk.old)] != list(hunk.old):
            raise BadInputError(f"{place} does not apply: {_mismatch(before, at, hunk.old)}")
        after += before[done:at]
        if len(after) != _index(hunk.new_start, hunk.new):
            raise BadInputError(
                f"{place} says that it lands on line {hunk.new_start}, but it lands on line "
                f"{len(after) + bool(hunk.new)}; make the patch anew against this tree"
            )
        after += hunk.new
        done = at + len(hunk.old)
    return after + before[done:]


def _index(start: int, lines: Sequence[str]) -> int:
    """Return a hunk's 0-based place; an empty side names the line *before* the place."""
    return start - 1 if lines else start


def _mismatch(before: list[str], at: int, old: Sequence[str]) -> str:
    """Name the line at which the hunk and the file differ, and where else it would fit."""
    places = range(len(before) - len(old) + 1) if old else ()
    elsewhere = next((i for i in places if before[i : i + len(old)] == list(old)), None)
    if elsewhere is not None:
        return (
            f"its lines stand at line {elsewhere + 1}, not at line {at + 1}, and an offset is not "
            "accepted; make the patch anew against this tree (rebase it onto the release's tag)"
        )
    for i, line in enumerate(old):
        actual = before[at + i] if at + i < len(before) else None
        if actual != line:
            shown = "the end of the file" if actual is None else repr(actual)
            return f"line {at + i + 1} should be {line!r}, found {shown}"
    return f"the file has only {len(before)} lines"


def _lines(text: str) -> list[str]:
    """Split at line feeds only, which is what diffs count; each line keeps its line end."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _starts_file(lines: Sequence[str], i: int) -> bool:
    """Tell whether line `i` begins the part of a diff that is about one file."""
    if lines[i].startswith("diff --git "):
        return True
    return lines[i].startswith("--- ") and i + 1 < len(lines) and lines[i + 1].startswith("+++ ")


class _Parser:
    """The state of one reading: the lines and how far it has come."""

    def __init__(self, text: str, patch: str, first_line: int) -> None:
        self.lines = text.removesuffix("\n").split("\n")
        self.at = 0
        self.patch = patch
        self.first_line = first_line

    def parse(self) -> tuple[FileDiff, ...]:
        files: list[FileDiff] = []
        while self.at < len(self.lines) and not _starts_file(self.lines, self.at):
            if self.line().startswith(_DIFF_PIECES):
                self.fail(f"{self.line()!r} stands before the diff and looks like a part of it")
            self.at += 1
        while self.at < len(self.lines) and _starts_file(self.lines, self.at):
            diff = self.file()
            if any(diff.path == other.path for other in files):
                self.fail(f"{diff.path} is changed twice; one patch names a file once")
            files.append(diff)
        self.signature()
        if not files:
            raise BadInputError(f"{self.patch}: holds no diff")
        return tuple(files)

    def line(self) -> str:
        """Return the line to be read next; past the end all are empty."""
        return self.lines[self.at] if self.at < len(self.lines) else ""

    def fail(self, problem: str) -> NoReturn:
        raise BadInputError(f"{self.patch}: line {self.at + self.first_line}: {problem}")

    def file(self) -> FileDiff:
        named: set[str] = set()
        kind: Literal["change", "add", "delete"] = "change"
        if header := _GIT_HEADER.fullmatch(self.line()):
            named |= {header["old"], header["new"]}
            self.at += 1
        elif self.line().startswith("diff --git "):
            self.fail(f"cannot read {self.line()!r}; it needs plain names after a/ and b/")
        while not self.line().startswith("--- ") and not self.ends_file():
            if mode := _FILE_MODE.fullmatch(self.line()):
                kind = "add" if mode["kind"] == "new" else "delete"
                self.check_mode(mode["mode"])
                if kind == "add" and mode["mode"] != "100644":
                    self.fail(f"a new file of mode {mode['mode']}; only mode 100644 is accepted")
            elif index := _INDEX.fullmatch(self.line()):
                self.check_mode(index["mode"] or "100644")
            else:
                self.refuse()
            self.at += 1
        hunks: tuple[Hunk, ...] = ()
        if self.line().startswith("--- "):
            old, new = self.name("--- ", "a/"), self.name("+++ ", "b/")
            if old == new == _DEV_NULL:
                self.fail("both names are /dev/null")
            if (old == _DEV_NULL) != (kind == "add") and named:
                self.fail("the names and the file mode lines disagree on whether the file is new")
            if (new == _DEV_NULL) != (kind == "delete") and named:
                self.fail("the names and the file mode lines disagree on whether the file goes")
            kind = "add" if old == _DEV_NULL else "delete" if new == _DEV_NULL else "change"
            named |= {old, new} - {_DEV_NULL}
            hunks = self.hunks()
        elif kind == "change":
            self.fail("no change follows the file's header")
        if len(named) != 1:
            self.fail(f"one file is named in several ways: {', '.join(sorted(named))}")
        path = named.pop()
        self.check_path(path)
        self.check_kind(kind, hunks)
        return FileDiff(path, kind, hunks)

    def ends_file(self) -> bool:
        """Tell whether a header ends here without `---`: an empty file added or deleted."""
        return self.line() in ("", "-- ") or _starts_file(self.lines, self.at)

    def name(self, mark: str, prefix: str) -> str:
        if not self.line().startswith(mark):
            self.fail(f"expected a line that starts with {mark!r}")
        # Plain diff puts a tab and a time stamp after the name.
        name = self.line()[len(mark) :].split("\t", 1)[0]
        if name.startswith('"'):
            self.fail(f"{name} is not a plain name of a file")
        self.at += 1
        return name if name == _DEV_NULL else name.removeprefix(prefix)

    def hunks(self) -> tuple[Hunk, ...]:
        hunks: list[Hunk] = []
        while header := _HUNK_HEADER.fullmatch(self.line()):
            hunks.append(self.hunk(header, len(hunks) + 1))
        if self.line().startswith("@@"):
            self.fail(f"cannot read the hunk header {self.line()!r}")
        if not hunks:
            self.fail("no hunk follows the file's names")
        return tuple(hunks)

    def hunk(self, header: re.Match[str], number: int) -> Hunk:
        if any(len(group or "") > _MOST_DIGITS for group in header.groups()):
            self.fail(f"cannot read the hunk header {header[0][:80]!r}")
        old_start, old_count, new_start, new_count = (
            int(group) if group is not None else 1 for group in header.groups()
        )
        old: list[str] = []
        new: list[str] = []
        self.at += 1
        while len(old) < old_count or len(new) < new_count:
            # An editor that trims blanks leaves an empty line where a blank context line was.
            mark, text = self.line()[:1] or " ", self.line()[1:] + "\n"
            if self.at >= len(self.lines) or mark not in " -+":
                self.fail(f"hunk {number} is shorter than its header says")
            self.at += 1
            if self.line().startswith("\\ "):  # no line end at the end of the file
                text = text[:-1]
                self.at += 1
            if mark in " -":
                old.append(text)
            if mark in " +":
                new.append(text)
        if len(old) > old_count or len(new) > new_count:
            self.fail(f"hunk {number} is longer than its header says")
        if old == new:
            self.fail(f"hunk {number} changes nothing")
        if (old and not old_start) or (new and not new_start):
            self.fail(f"hunk {number} begins on line 0")
        return Hunk(number, header[0], old_start, tuple(old), new_start, tuple(new))

    def signature(self) -> None:
        """Step over a mail's signature; anything else after the last hunk is refused."""
        if self.line() == "-- ":
            self.at += 2
        while self.at < len(self.lines):
            if self.line():
                self.refuse()
            self.at += 1

    def refuse(self) -> NoReturn:
        for starts, what in _REFUSED:
            if self.line().startswith(starts):
                self.fail(f"{what} ({self.line()}); only text changes of files are accepted")
        if self.line()[:1] in ("+", "-", " "):
            self.fail("a hunk is longer than its header says")
        self.fail(f"unexpected line {self.line()!r}")

    def check_mode(self, mode: str) -> None:
        if mode in _OTHER_MODES:
            self.fail(f"{_OTHER_MODES[mode]}; only text changes of files are accepted")
        if mode not in _REGULAR_MODES:
            self.fail(f"file mode {mode}; only regular files are accepted")

    def check_kind(self, kind: str, hunks: tuple[Hunk, ...]) -> None:
        if kind == "add" and any(hunk.old or hunk.new_start != 1 for hunk in hunks):
            self.fail("the hunk of a new file adds lines from line 1 on, and nothing else")
        if kind == "delete" and any(hunk.new or hunk.old_start != 1 for hunk in hunks):
            self.fail("the hunk of a deleted file takes lines from line 1 on, and nothing else")
        if kind != "change" and len(hunks) > 1:
            self.fail("a new or deleted file has one hunk")

    def check_path(self, path: str) -> None:
        parts = path.split("/")
        if path.startswith("/") or ".." in parts:
            self.fail(f"{path!r} leaves the tree")
        if any(part in ("", ".", "__pycache__") for part in parts) or not all(
            character.isprintable() and character not in '\\"' for character in path
        ):
            self.fail(f"{path!r} is not a plain name of a file")
        if parts[0] != "vllm" or len(parts) < 2:
            self.fail(f"{path!r} is outside vllm/; a patch may touch only files below it")
