"""Inline waivers: `# pp-lint: ignore[PP104] the reason`, on the line or on the line above it."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.lint.report import Finding
from harness.lint.rules import RULES, about_file

_WAIVER = re.compile(r"#\s*pp-lint:\s*ignore(?:\[(?P<codes>[^\]]*)\])?(?P<reason>.*)")
# What says that nothing was checked, or that a waiver is wrong, cannot be waived.
_NEVER = ("PP901", "PP903", "PP904")
_NO_CODE = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT)


@dataclass(frozen=True)
class Waiver:
    """One waiver comment."""

    line: int
    target: int
    """The line of code that it speaks of: its own, or the next one below a comment alone."""
    codes: tuple[str, ...]
    reason: str

    @property
    def fault(self) -> str:
        """Why the waiver cannot be applied; empty when it can."""
        if not self.codes:
            return "a waiver names the codes that it waives: ignore[CODE] reason"
        unknown = [code for code in self.codes if code not in RULES or code in _NEVER]
        if unknown:
            return f"no waivable rule {', '.join(unknown)}"
        return "" if self.reason else f"no reason is given for waiving {', '.join(self.codes)}"

    def waives(self, each: Finding) -> bool:
        """Does the waiver take the finding out?"""
        return each.code in self.codes and self.target == each.line and not self.fault


def waivers_in(source: str) -> list[Waiver]:
    """The waivers in a file's comments; strings that look like one do not count."""
    if "pp-lint:" not in source:
        return []
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        # The file does not parse either, which is reported as PP901.
        return []
    waivers: list[Waiver] = []
    code_lines = [token.start[0] for token in tokens if token.type not in _NO_CODE]
    for token in tokens:
        match = _WAIVER.match(token.string) if token.type == tokenize.COMMENT else None
        if match is not None:
            line = token.start[0]
            alone = token.line[: token.start[1]].strip() == ""
            target = min((n for n in code_lines if n > line), default=line) if alone else line
            codes = tuple(re.findall(r"[^\s,]+", (match["codes"] or "").upper()))
            waivers.append(Waiver(line, target, codes, match["reason"].strip(" :-")))
    return waivers


def apply_waivers(
    findings: Iterable[Finding],
    waivers: Mapping[str, Sequence[Waiver]],
    unjudged: Collection[str] = (),
) -> tuple[list[Finding], int]:
    """Take out what is waived, and add a finding for each waiver that is wrong or not used.

    Args:
        findings: All findings.
        waivers: The waivers of each file, by the path that findings carry.
        unjudged: Files of which not all findings are known: their waivers are not judged.
    """
    kept: list[Finding] = []
    used: set[tuple[str, int, str]] = set()
    waived = 0
    for each in findings:
        hit = next((w for w in waivers.get(each.path, ()) if w.waives(each)), None)
        if hit is None:
            kept.append(each)
        else:
            waived += 1
            used.add((each.path, hit.line, each.code))
    for path in waivers.keys() - set(unjudged):
        for waiver in waivers[path]:
            kept += _faults(path, waiver, used)
    return kept, waived


def _faults(path: str, waiver: Waiver, used: set[tuple[str, int, str]]) -> Iterator[Finding]:
    idle = [code for code in waiver.codes if (path, waiver.line, code) not in used]
    if waiver.fault:
        yield about_file("PP904", path, waiver.line, waiver.fault)
    elif idle:
        yield about_file("PP903", path, waiver.line, f"{', '.join(idle)} is not found here")
