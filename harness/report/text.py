"""Text for people from text that nobody vouches for: model output, file names, tracebacks."""

import unicodedata
from collections.abc import Sequence


def printable(text: str) -> str:
    r"""Write each character of `text` that acts instead of showing as its code.

    Terminal escapes become `\x1b`, bidirectional overrides `\u202e`, lone surrogates `\ud800`. What
    only lays text out stays: line feeds, tabs, and spaces of any kind.
    """
    return "".join(
        sign
        if sign.isprintable() or sign in "\n\t" or unicodedata.category(sign) == "Zs"
        else _code(sign)
        for sign in text
    )


def one_line(text: str, width: int | None = None) -> str:
    """Make `text` printable on one line, of at most `width` characters."""
    line = " ".join(printable(text).split())
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


def figure(value: object) -> str:
    """Write a figure as people read it: four significant digits, whole numbers whole."""
    if value is None:
        return "undefined"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def counted(number: int, noun: str) -> str:
    """Put a number before its noun, in the plural where it is not one."""
    if number != 1:
        noun += "es" if noun.endswith("ch") else "s"
    return f"{number} {noun}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Set rows of equal length in columns; texts are printable and on one line."""
    table = [[one_line(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _code(sign: str) -> str:
    number = ord(sign)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
