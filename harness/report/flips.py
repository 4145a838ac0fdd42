"""Two answers to one question, side by side: where they part."""

import re
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from .schema import FindingRecord

# Words with the space before them, runs of white space, single signs.
_TOKEN = re.compile(r" ?\w+|\s+|[^\w\s]")
# A token of white space longer than this is counted and not drawn.
_DRAWN = 8


@dataclass(frozen=True)
class Answer:
    """An answer, parted at the first token that the other lacks: `same`, then `token`, `rest`."""

    same: str
    token: str
    rest: str


@dataclass(frozen=True)
class ChangedAnswer:
    """A question and its two answers; `target` is the right one.

    `change` is `lost`, `won`, or `text` where no score moved; empty in older reports.
    """

    question: str
    target: str
    baseline: Answer
    candidate: Answer
    change: str = ""


def answer_examples(finding: FindingRecord) -> list[dict[str, Any]]:
    """Questions in the evidence of a finding whose answers differ."""
    examples = finding.evidence.get("examples") or ()
    return [example for example in examples if isinstance(example, dict) and "question" in example]


def changed_answers(finding: FindingRecord, most: int) -> list[ChangedAnswer]:
    """The first of the answers that a finding keeps, at most `most`, each parted at the change."""
    return [
        ChangedAnswer(
            example["question"],
            example["target"],
            *part(example["baseline"], example["candidate"]),
            example.get("change", ""),
        )
        for example in answer_examples(finding)[:most]
    ]


def part(baseline: str, candidate: str) -> tuple[Answer, Answer]:
    """Part two texts at their first token that differs; a text that ends first has none there."""
    sides = _TOKEN.findall(baseline), _TOKEN.findall(candidate)
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(*sides, strict=False))
    count = sum(1 for _ in equal)
    before, after = (
        Answer(
            "".join(tokens[:count]),
            _visible(tokens[count]) if count < len(tokens) else "(ends)",
            "".join(tokens[count + 1 :]),
        )
        for tokens in sides
    )
    return before, after


def _visible(token: str) -> str:
    if not token.isspace():
        return token
    signs = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    return signs if len(signs) <= _DRAWN else f"{signs[:_DRAWN]}… ({len(token)} characters)"
