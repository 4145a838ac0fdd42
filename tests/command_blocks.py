"""The command blocks of README and docs: which there are, and what a run of one must print.

A block is fenced as `console`; its commands follow `$ `, what they print follows them, and `[...]`
stands for what is left out. The comment before it says what runs it:

    <!-- run: short -->                 in the tests
    <!-- run: long, status 1 -->        under `tox run -e docs-all`; ends with status 1
    <!-- run: by tests/test_x.py -->    that file runs the same; nothing more is done here
    <!-- run: gpu -->                   needs GPUs or their network: no test of ours runs it
    <!-- file: my.patch -->             no commands: the block's text is this file, for those below
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(
    path
    for pages in ("README.md", "docs/*.md", "results/upstream/*.md")
    for path in sorted(ROOT.glob(pages))
)
_BLOCK = re.compile(
    r"^<!-- (?P<kind>run|file): (?P<what>[^\n]+?) -->\n+```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_PROGRAMS = r"(?:pp-harness|pytest|tox|uv|lm_eval|python3?(?:\.\d+)?) "
# What differs from run to run: seconds, and the dots of pytest's progress.
_VARYING = ((re.compile(r"\d+\.\d+s( \(\d+:\d+:\d+\))?"), "_s"), (re.compile(r"=+"), "="))


@dataclass(frozen=True)
class Command:
    """One command of a block and the lines that the page shows below it."""

    line: str
    shown: tuple[str, ...]

    def missing(self, output: str) -> list[str]:
        """Return the shown lines that a real output lacks, in this order; `[...]` fits anything."""
        lines = iter(_plain(output).splitlines())
        wanted = ((line, _pattern(line)) for line in self.shown if line.strip())
        return [
            line
            for line, pattern in wanted
            if line != "[...]" and not any(pattern.fullmatch(one) for one in lines)
        ]


@dataclass(frozen=True)
class Block:
    """A marked block: `what` is short, long, `by ...`, or a file's name."""

    page: Path
    kind: str
    what: str
    text: str
    status: int = 0

    @property
    def commands(self) -> list[Command]:
        """Return the commands in order; a line ending in a backslash goes on in the next."""
        found: list[Command] = []
        for line in re.sub(r"\\\n\s*", "", self.text).splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:], ()))
            elif found:
                found[-1] = Command(found[-1].line, (*found[-1].shown, line))
        return found


def blocks(page: Path) -> list[Block]:
    """Return the marked blocks of a page."""
    found = []
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        what, _, status = match["what"].partition(", status ")
        found.append(Block(page, match["kind"], what, match["text"], int(status or 0)))
    return found


def unmarked(page: Path) -> list[str]:
    """Return the command lines of a page that stand outside of a marked block."""
    rest = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return re.findall(rf"^(?: {{4}}|)(?:\$ |{_PROGRAMS}).+$", rest, re.MULTILINE)


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, _plain(line).split("[...]"))))


def _plain(text: str) -> str:
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return "\n".join(" ".join(line.split()) for line in text.splitlines())
