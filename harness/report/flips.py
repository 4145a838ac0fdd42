"""Two answers to one question, side by side: where they part."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

# Words with the space before them, runs of white space, single signs.
_TOKEN = re.compile(r" ?\w+|\s+|[^\w\s]")
# A token of white space longer than this is counted and not drawn.
_DRAWN = 8


@dataclass(frozen=True)
class Answer:
    """One answer, cut at the first token that the other has not: `same`, then `token`, `rest`."""

    same: str
    token: str
    rest: str


@dataclass(frozen=True)
class Flip:
    """One question and its two answers; `target` is what was asked for.

    `change` is `lost`, `won`, or `text` where no score moved; empty in older reports.
    """

    question: str
    target: str
    baseline: Answer
    candidate: Answer
    change: str = ""


def flips(examples: list[Mapping[str, Any]]) -> list[Flip]:
    """Return what the accuracy findings keep of changed answers, each cut where the two part."""
    return [
        Flip(
            one["question"],
            one["target"],
            *part(one["baseline"], one["candidate"]),
            one.get("change", ""),
        )
        for one in examples
    ]


def part(baseline: str, candidate: str) -> tuple[Answer, Answer]:
    """Cut two texts at their first token that differs; a text that ends first has none there."""
    sides = _TOKEN.findall(baseline), _TOKEN.findall(candidate)
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(*sides, strict=False))
    count = sum(1 for _ in equal)
    one, other = (
        Answer(
            "".join(tokens[:count]),
            _visible(tokens[count]) if count < len(tokens) else "(ends)",
            "".join(tokens[count + 1 :]),
        )
        for tokens in sides
    )
    return one, other


def _visible(token: str) -> str:
    """Return a token; white space as signs that can be seen."""
    if not token.isspace():
        return token
    signs = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    return signs if len(signs) <= _DRAWN else f"{signs[:_DRAWN]}… ({len(token)} characters)"
