"""Paired answers: exact McNemar, a conservative bound, and nothing that passes unpaired."""

import math

import pytest
from builders import answer
from hypothesis import given
from hypothesis import strategies as st

from harness.compare.accuracy import compare_accuracy, fall_bound, mcnemar
from harness.compare.finding import Outcome


def binomial(k, n, p):
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_against_summed_binomials(lost, won):
    """The p-value is the chance of at least `lost` heads in `lost + won` fair tosses."""
    total = lost + won
    exact = sum(math.comb(total, k) for k in range(lost, total + 1)) / 2**total
    assert mcnemar(lost, won) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("count", [4, 12])
@pytest.mark.parametrize("loss", [0.0, 0.05, 0.3, 0.6])
@pytest.mark.parametrize("win", [0.0, 0.05, 0.35])
def test_bound_covers_the_fall(count, loss, win):
    """Over all outcomes, weighed by their chance, the bound misses the true fall in at most 5 %."""
    missed = 0.0
    for lost in range(count + 1):
        for won in range(count - lost + 1):
            kept = count - lost - won
            chance = (
                math.comb(count, lost)
                * math.comb(count - lost, won)
                * loss**lost
                * win**won
                * (1 - loss - win) ** kept
            )
            if chance and fall_bound(lost, won, count) < loss - win:
                missed += chance
    assert missed <= 0.05


@given(st.integers(1, 200), st.data())
def test_bound_is_above_the_measured_fall(count, data):
    """The bound is never below the fall that was seen, and never above 1."""
    lost = data.draw(st.integers(0, count))
    won = data.draw(st.integers(0, count - lost))
    assert (lost - won) / count <= fall_bound(lost, won, count) <= 1


@pytest.mark.parametrize("count", [1, 8, 128, 1319])
def test_bound_without_a_change_is_clopper_pearsons(count):
    """With nothing lost and won the bound is 1 - 0.025**(1/n), so that few questions stay open."""
    assert fall_bound(0, 0, count) == pytest.approx(1 - 0.025 ** (1 / count))


def judge(build, before, after, **options):
    baseline, candidate = build(pp=1), build(pp=2)
    baseline.answers, candidate.answers = before, after
    return compare_accuracy(baseline.save(), candidate.save(), **options)


def test_identical_outputs_pass(build):
    """The same outputs pass, right or wrong, whatever the number of questions."""
    answers = [answer(0), answer(1, right=False)]
    verdict = judge(build, answers, answers)
    assert verdict.outcome is Outcome.PASS
    assert verdict.summary == "all 2 outputs identical (0.500 at PP=1, 0.500 here)"


@pytest.mark.parametrize("name", ["doc_hash", "prompt_hash", "target_hash"])
@pytest.mark.parametrize("value", ["other", None])
def test_unpaired_question_fails(build, name, value):
    """ACC003: a question whose hash differs or is missing is no pair, though the rest agrees."""
    other = [answer(number) for number in range(4)]
    other[2][name] = value
    verdict = judge(build, [answer(number) for number in range(4)], other)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.findings[0].code == "ACC003"
    assert f"question 2 does not pair: {name}" in verdict.summary


def test_hash_missing_on_both_sides_fails(build):
    """ACC003: two missing hashes are not an equal hash."""
    answers = [answer(0) | {"prompt_hash": None}]
    assert judge(build, answers, answers).findings[0].code == "ACC003"


@pytest.mark.parametrize("longer", [0, 1])
def test_different_number_of_questions_fails(build, longer):
    """ACC003: the longer side is not cut to the shorter."""
    sides = [[answer(n) for n in range(3)], [answer(n) for n in range(3)]]
    sides[longer].append(answer(3))
    assert judge(build, *sides).findings[0].code == "ACC003"


def test_other_order_fails(build):
    """ACC003: the same questions in another order do not pair."""
    answers = [answer(0), answer(1)]
    assert judge(build, answers, answers[::-1]).findings[0].code == "ACC003"


@pytest.mark.parametrize("side", [0, 1])
def test_no_answers_is_blocked(build, side):
    """A side without answers gives no verdict on accuracy."""
    sides = [[answer(0)], [answer(0)]]
    sides[side] = []
    assert judge(build, *sides).outcome is Outcome.BLOCKED


def test_significant_fall_fails(build):
    """ACC001: five losses and no win cannot be chance (1/32), and examples are shown."""
    before = [answer(n) for n in range(10)]
    after = [answer(n, right=n >= 5) for n in range(10)]
    verdict = judge(build, before, after)
    assert verdict.outcome is Outcome.FAIL
    (found,) = verdict.findings
    assert found.code == "ACC001"
    assert found.evidence["p_value"] == pytest.approx(1 / 32)
    assert (found.evidence["baseline"], found.evidence["candidate"]) == (1.0, 0.5)
    assert found.evidence["examples"][0] == {
        "question": "question 0",
        "target": "#### 1",
        "baseline": "#### 1",
        "candidate": "#### 2",
    }
    assert len(found.evidence["examples"]) == 3


def test_fall_that_may_be_chance_is_inconclusive(build):
    """ACC002: four losses and no win (1/16) decide nothing, and that is no pass."""
    before = [answer(n) for n in range(10)]
    after = [answer(n, right=n >= 4) for n in range(10)]
    verdict = judge(build, before, after)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert [found.code for found in verdict.findings] == ["ACC002"]


def test_changed_outputs_with_equal_scores_are_inconclusive_if_few(build):
    """ACC002: wrong answers that turn into other wrong answers are no proof of equality."""
    before = [answer(n, right=False) for n in range(20)]
    after = [answer(n, right=False, output="#### 3") for n in range(20)]
    verdict = judge(build, before, after)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.figures["outputs_changed"] == 20
    assert "no question is solved at PP=1" in verdict.findings[0].cure, "more would not help"


def test_changed_outputs_pass_with_enough_questions(build):
    """A change that moves no score passes once the bound is below the margin."""
    # 1 - 0.025**(1/n) < 0.01 from n = 368 on.
    for count, outcome in ((367, Outcome.INCONCLUSIVE), (368, Outcome.PASS)):
        before = [answer(n) for n in range(count)]
        after = [answer(n) for n in range(count)]
        after[0]["output"] += " "
        assert judge(build, before, after).outcome is outcome


def test_margin_decides(build):
    """A wider margin, given beforehand, turns an open question into a pass."""
    before = [answer(n) for n in range(100)]
    after = [answer(n, output="longer #### 1") for n in range(100)]
    assert judge(build, before, after).outcome is Outcome.INCONCLUSIVE
    assert judge(build, before, after, margin=0.05).outcome is Outcome.PASS


def test_score_that_moves_under_an_equal_output_is_no_pass(build):
    """Equal outputs with other scores are a change: they must not pass as identical."""
    before = [answer(n) for n in range(10)]
    after = [answer(n, right=False, output="#### 1") for n in range(10)]
    assert judge(build, before, after).outcome is Outcome.FAIL


def test_better_answers_pass(build):
    """More right answers at PP=N are no fall."""
    before = [answer(n, right=n >= 20) for n in range(40)]
    after = [answer(n) for n in range(40)]
    assert judge(build, before, after).outcome is Outcome.PASS
