"""Paired answers: identical, lost, won, open, and nothing that passes unpaired."""

import pytest
from builders import answer

from harness.checks.accuracy.accuracy import compare_accuracy
from harness.checks.finding import Outcome, Severity


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
    assert not {"p_value", "fall_bound"} & set(verdict.figures), "there is nothing to estimate"


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
    """ACC003: the longer side is not shortened to fit."""
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
    """ACC001: five losses and no win cannot be chance (1/32); each flip is there, both answers."""
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
        "change": "lost",
    }
    assert [one["question"] for one in found.evidence["examples"]] == [
        f"question {number}" for number in range(5)
    ]


def test_wins_are_kept_beside_losses(build):
    """A question that turned right is a flip too, and comes after those that turned wrong."""
    before = [answer(0), answer(1, right=False), answer(2)]
    after = [answer(0), answer(1), answer(2, right=False)]
    (found,) = judge(build, before, after).findings
    flips = [(one["question"], one["change"]) for one in found.evidence["examples"]]
    assert flips == [("question 2", "lost"), ("question 1", "won")]


def test_flexible_extract_stands_beside_strict_match(build):
    """The verdict goes by strict-match; what flexible-extract reads is in figures and message."""
    before = [answer(n) for n in range(10)]
    after = [answer(n, right=n >= 6) for n in range(10)]
    for line in after[:4]:
        line["scores"]["flexible-extract"] = 1.0  # the number is right, its form is not
    verdict = judge(build, before, after)
    assert verdict.outcome is Outcome.FAIL
    figures = verdict.figures
    assert (figures["lost"], figures["candidate"]) == (6, 0.4)
    assert (figures["flexible_lost"], figures["flexible_candidate"]) == (2, 0.8)
    assert (figures["flexible_baseline"], figures["flexible_won"]) == (1.0, 0)
    assert "flexible-extract 1.000, 0.800" in verdict.summary


def test_score_that_only_flexible_extract_moves_is_a_change(build):
    """Outputs are identical only if both filters read the same: else it is no identical pass."""
    before = [answer(n) for n in range(10)]
    after = [answer(n) for n in range(10)]
    after[3]["scores"]["flexible-extract"] = 0.0
    assert judge(build, before, after).outcome is Outcome.INCONCLUSIVE


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
    assert "no question is solved at PP=1" in verdict.findings[0].fix, "more would not help"


def test_changed_outputs_pass_with_enough_questions(build):
    """A change that moves no score passes once the bound is below the margin."""
    # 1 - 0.049**(1/n) < 0.01 from n = 301 on.
    for count, outcome in ((300, Outcome.INCONCLUSIVE), (301, Outcome.PASS)):
        before = [answer(n) for n in range(count)]
        after = [answer(n) for n in range(count)]
        after[0]["output"] += " "
        assert judge(build, before, after).outcome is outcome


def test_flips_within_the_margin_pass_and_are_shown(build):
    """ACC004: a pass in which answers flipped still shows each of them."""
    before = [answer(n, right=n != 0) for n in range(200)]
    after = [answer(n, right=n != 1) for n in range(200)]
    verdict = judge(build, before, after, margin=0.05)
    assert verdict.outcome is Outcome.PASS
    (found,) = verdict.findings
    assert (found.code, found.severity) == ("ACC004", Severity.INFO)
    assert [one["change"] for one in found.evidence["examples"]] == ["lost", "won"]
    assert verdict.figures["fall_low"] < 0 < verdict.figures["fall_bound"] < 0.05


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
