"""Answers of two engines that ran the same batches: equal, token by token."""

from itertools import zip_longest
from typing import Any

from ..finding import Finding

Line = dict[str, Any]


def first_differing_token(before: Line, after: Line) -> int | None:
    """Return the place of the first token that two answers do not share; None if there is none."""
    for place, (one, other) in enumerate(zip_longest(before["tokens"], after["tokens"])):
        if one != other:
            return place
    return None


def differing_tokens(pairs: list[tuple[Line, Line]]) -> Finding | None:
    """ACC006 where tokens of PP=N differ from those of PP=1, None if all are the same.

    Requests are in flight together: after the first token that differs batches differ too, and
    other answers may follow. So the finding names the answer that parts first.
    """
    parted = [
        (place, number)
        for number, (before, after) in enumerate(pairs)
        if (place := first_differing_token(before, after)) is not None
    ]
    if not parted:
        return None
    place, number = min(parted)
    before, after = pairs[number]
    ids = [line["tokens"][place : place + 1] for line in (before, after)]
    chose, chooses = (f"token {each[0]}" if each else "the end" for each in ids)
    # An answer that ended has no margin there: vLLM stopped before it chose.
    margin = before["margins"][place] if ids[0] else None
    by = "" if margin is None else f" by {margin:.4f} nats over its second choice"
    return Finding(
        "ACC006",
        f"{len(parted)} of {len(pairs)} answers differ in the same batches: question {number} "
        f"first, at place {place}, where PP=1 chose {chose}{by} and PP=N {chooses}",
        "see the contract and logits findings; if there is none, a probe lacks what this question "
        "has: please report it",
        evidence={
            "question": before["question"],
            "number": number,
            "place": place,
            "margin": margin,
        },
    )
