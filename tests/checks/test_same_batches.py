"""Answers in the same batches: equal to the last token, or named where they part first."""

import pytest
from builders import answer

from harness.checks.accuracy.same_batches import differing_tokens


def line(number, tokens):
    return answer(number) | {"tokens": tokens, "margins": [0.5 + place for place in range(9)]}


def test_the_same_tokens_leave_no_finding():
    """Equal answers, however long, are no finding."""
    side = [line(0, [1, 2, 3]), line(1, [])]
    assert differing_tokens(list(zip(side, side, strict=True))) is None


def test_the_earliest_parting_is_named():
    """ACC006 names question, place, both tokens and the margin of PP=1, of the earliest parting."""
    before = [line(0, [1, 2, 3, 4]), line(1, [5, 6, 7]), line(2, [8])]
    after = [line(0, [1, 2, 3, 9]), line(1, [5, 0, 7]), line(2, [8])]
    found = differing_tokens(list(zip(before, after, strict=True)))
    assert found.code == "ACC006"
    assert found.message.startswith("2 of 3 answers differ in the same batches: question 1 first")
    assert "at place 1, where PP=1 chose token 6 by 1.5000 nats" in found.message
    assert found.message.endswith("PP=N token 0")
    assert (found.evidence["number"], found.evidence["place"]) == (1, 1)


@pytest.mark.parametrize("longer", [0, 1])
def test_an_answer_that_goes_on_differs(longer):
    """An answer that begins as the other and goes on is not the same."""
    sides = [[line(0, [1, 2])], [line(0, [1, 2])]]
    sides[longer] = [line(0, [1, 2, 3])]
    found = differing_tokens(list(zip(*sides, strict=True)))
    assert found.evidence["place"] == 2
    assert "the end" in found.message
