"""Read a patch file as it is downloaded from a pull request: one diff, or mails of format-patch.

Unlike a patch of a series it may change files outside `vllm/` (tests, docs, binary files, renames):
they cannot reach an installed release and are skipped, by name. Files below `vllm/` are read by
the strict reader of `diff.py`.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from ..errors import BadInputError
from ..files import read_bytes
from .compiled import SOURCES
from .diff import FileDiff, parse_diff
from .series import Patch

# No line of a hunk begins so: each has a blank, + or - before its text.
_MAIL = re.compile(r"From [0-9a-f]{40,64} \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}")
_FILE = "diff --git "
# In a line that names files: a path below vllm/, quoted or not, with any prefix or none.
_BELOW_VLLM = re.compile(r'[ "](?:[abciow]/)?vllm/')
# Lines of a diff that cannot stand in a message: with them the diff was not recognised as one.
_STRAY = ("@@ -", "+++ ")
_COMPILED_SUFFIXES = frozenset((".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hip", ".hpp", ".inl"))


@dataclass(frozen=True)
class PatchFile:
    """A file's patches, one for each commit, and the files that it changes outside vllm/."""

    patches: tuple[Patch, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class _Section:
    """The part of a diff that is about one file: its lines, and where they stand."""

    first_line: int
    lines: tuple[str, ...]

    @property
    def is_below_vllm(self) -> bool:
        """Whether the file lies, or lay before a rename, below vllm/."""
        return bool(_BELOW_VLLM.search(self.lines[0]))

    @property
    def name(self) -> str:
        """The file's name, for people."""
        return self.lines[0].rpartition(" b/")[2]


def read_patch_file(path: Path) -> PatchFile:
    """Read a patch file.

    Raises `BadInputError`, naming file and line, if it is no diff, changes nothing below `vllm/`,
    changes code that is compiled, or changes a file below `vllm/` in another way than in its text.
    """
    data = read_bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    # Files outside vllm/ may be in any encoding; those below it are checked to be UTF-8.
    lines = data.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")
    patches: list[Patch] = []
    skipped: list[str] = []
    for start, end in _mails(lines):
        sections = _sections(lines, start, end)
        _refuse_stray(lines, start, sections[0].first_line - 1 if sections else end, path)
        outside = [section.name for section in sections if not section.is_below_vllm]
        _refuse_compiled(outside, path)
        skipped += [name for name in outside if name not in skipped]
        files = _parse([section for section in sections if section.is_below_vllm], path)
        if files:
            patches.append(Patch(path, files, digest, variant="patched"))
    if not patches and not skipped:
        raise BadInputError(
            f"{path}: holds no diff; give what `git diff` or `git format-patch` wrote, or a pull "
            "request's .diff or .patch"
        )
    if not patches:
        raise BadInputError(
            f"{path}: changes nothing below vllm/ (only {', '.join(skipped)}), so there is nothing "
            "to measure"
        )
    return PatchFile(tuple(patches), tuple(skipped))


def _mails(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Find where each mail begins and ends; a file that is no mail is a single piece."""
    starts = [i for i, line in enumerate(lines) if _MAIL.fullmatch(line)]
    if not starts or starts[0]:
        starts = [0, *starts]
    return list(pairwise([*starts, len(lines)]))


def _sections(lines: Sequence[str], start: int, end: int) -> list[_Section]:
    """Split the diff in `lines[start:end]` into files."""
    starts = [at for at in range(start, end) if lines[at].startswith(_FILE)]
    return [
        _Section(first + 1, tuple(lines[first:last])) for first, last in pairwise([*starts, end])
    ]


def _parse(sections: Sequence[_Section], path: Path) -> tuple[FileDiff, ...]:
    files: list[FileDiff] = []
    for section in sections:
        text = "\n".join(section.lines)
        where = f"{path}: line {section.first_line}: {section.name}"
        if any(line.startswith(("rename ", "copy ")) for line in section.lines):
            raise BadInputError(
                f"{where}: a rename or a copy; make the diff with `git diff --no-renames` (or "
                "`git format-patch --no-renames`)"
            )
        if "\r" in text:
            raise BadInputError(f"{where}: has a carriage return; use line feeds alone")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise BadInputError(f"{where}: not UTF-8 text")
        (diff,) = parse_diff(text, str(path), section.first_line)
        if any(diff.path == other.path for other in files):
            raise BadInputError(f"{where}: changed twice; one commit's diff names a file once")
        files.append(diff)
    return tuple(files)


def _refuse_stray(lines: Sequence[str], start: int, end: int, path: Path) -> None:
    for at in range(start, end):
        if lines[at].startswith(_STRAY):
            raise BadInputError(
                f"{path}: line {at + 1}: {lines[at]!r} stands before the diff and looks like a "
                "part of it; give the whole diff, as `git diff` writes it"
            )


def _refuse_compiled(names: Sequence[str], path: Path) -> None:
    compiled = [
        name
        for name in names
        if name.startswith(SOURCES) or PurePosixPath(name).suffix in _COMPILED_SUFFIXES
    ]
    if compiled:
        raise BadInputError(
            f"{path}: changes compiled code ({', '.join(compiled)}), which a release's own "
            "compiled files do not have: build and install this vLLM, or take those files out of "
            "the diff if what you measure does not need them"
        )
