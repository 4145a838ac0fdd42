"""Paired answers: identical, lost, won, open, and nothing that passes unpaired."""

import pytest
from builders import answer

from harness.checks.accuracy.accuracy import compare_accuracy
from harness.checks.accuracy.paired import mcnemar
from harness.checks.accuracy.power import FALSE_ALARM, fewest_questions
from harness.checks.finding import Outcome, Severity
from harness.engine.settings import Kernels, Mode, Profile

STRESS = {"profile": Profile.STRESS}


def judge(build, before, after, *, asked=None, again=(), **options):
    sides = build(pp=1), build(pp=2)
    sides[0].second_answers = list(again)
    for side, answers in zip(sides, (before, after), strict=True):
        side.answers = answers
        side.asked(**(asked or {}))
    return compare_accuracy(*(side.save() for side in sides), **options)


def test_identical_outputs_pass(build):
    """The same outputs pass, right or wrong, whatever the number of questions."""
    answers = [answer(0), answer(1, right=False)]
    verdict = judge(build, answers, answers)
    assert verdict.outcome is Outcome.PASS
    assert verdict.summary == "all 2 outputs identical (strict-match 0.500 at PP=1, 0.500 here)"
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
    """ACC001: thirteen losses and no win are no chance (1/8192); each flip is there."""
    before = [answer(n) for n in range(20)]
    after = [answer(n, right=n >= 13) for n in range(20)]
    verdict = judge(build, before, after)
    assert verdict.outcome is Outcome.FAIL
    (found,) = verdict.findings
    assert found.code == "ACC001"
    assert found.evidence["p_value"] == pytest.approx(1 / 2**13)
    assert (found.evidence["baseline"], found.evidence["candidate"]) == (1.0, 0.35)
    assert found.evidence["examples"][0] == {
        "question": "question 0",
        "target": "#### 1",
        "baseline": "#### 1",
        "candidate": "#### 2",
        "change": "lost",
    }
    assert [one["question"] for one in found.evidence["examples"]] == [
        f"question {number}" for number in range(13)
    ]


@pytest.mark.parametrize(
    ("profile", "outcome"), [(Profile.PARITY, Outcome.FAIL), (Profile.STRESS, Outcome.INCONCLUSIVE)]
)
def test_five_losses_are_no_chance_where_bits_are_asked_for(build, profile, outcome):
    """ACC001: five lost and none won (1/32) fail in parity, where honest answers are identical."""
    before = [answer(n) for n in range(10)]
    after = [answer(n, right=n >= 5) for n in range(10)]
    assert judge(build, before, after, asked={"profile": profile}).outcome is outcome


def test_significant_rise_fails(build):
    """ACC005: answers that all turn right are not the same computation."""
    before = [answer(n, right=False) for n in range(128)]
    after = [answer(n, right=n < 85) for n in range(128)]
    verdict = judge(build, before, after)
    assert verdict.outcome is Outcome.FAIL
    assert [found.code for found in verdict.findings] == ["ACC005"]
    assert verdict.figures["p_rise"] < 1e-20


@pytest.mark.parametrize("lost", range(0, 13))
def test_a_night_of_honest_verdicts_stays_green(build, lost):
    """Flips as chance gives them in a hundred verdicts do not fail: the level is the night's."""
    before = [answer(n, right=n >= 12 - lost) for n in range(1400)]
    after = [answer(n, right=n < 1400 - lost) for n in range(1400)]
    verdict = judge(build, before, after, asked={"profile": Profile.STRESS})
    fails = abs(12 - 2 * lost) == 12
    assert (verdict.outcome is Outcome.FAIL) is fails
    # 2**-12, the most extreme of them, comes once in 4,096 pairs for each side.
    assert min(mcnemar(lost, 12 - lost), mcnemar(12 - lost, lost)) >= FALSE_ALARM / 2 or fails


def test_wins_are_kept_beside_losses(build):
    """A question that turned right is a flip too, and comes after those that turned wrong."""
    before = [answer(0), answer(1, right=False), answer(2)]
    after = [answer(0), answer(1), answer(2, right=False)]
    (found,) = judge(build, before, after, asked=STRESS).findings
    flips = [(one["question"], one["change"]) for one in found.evidence["examples"]]
    assert flips == [("question 2", "lost"), ("question 1", "won")]


def test_the_filter_by_which_pp_1_solves_more_decides(build):
    """A model whose form strict-match never reads is judged by its numbers: 0.61 to 0.31 fails."""
    sides = [[answer(n, right=False) for n in range(384)] for _ in range(2)]
    for side, share in zip(sides, (0.61, 0.31), strict=True):
        for line in side[: int(384 * share)]:
            line["scores"]["flexible-extract"] = 1.0
        for line in side:
            line["output"] += f" {share}"
    verdict = judge(build, *sides)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.figures["filter"] == "flexible-extract"
    assert (verdict.figures["lost"], verdict.figures["flexible_lost"]) == (115, 115)


def test_the_candidate_has_no_say_in_the_filter(build):
    """What PP=N breaks is not read by the filter that hides it: the baseline alone chooses."""
    before = [answer(n) for n in range(20)]
    after = [answer(n, right=n >= 16) for n in range(20)]
    for line in after[:16]:
        line["scores"]["strict-match"] = 0.0
        line["scores"]["flexible-extract"] = 1.0  # the number is right, its form is not
    verdict = judge(build, before, after)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.figures["filter"] == "strict-match"
    assert (verdict.figures["lost"], verdict.figures["flexible_lost"]) == (16, 0)


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
    verdict = judge(build, before, after, asked=STRESS)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert [found.code for found in verdict.findings] == ["ACC002"]


@pytest.mark.parametrize("solved", [0, 37])
def test_a_baseline_that_solves_nothing_shows_no_fall(build, solved):
    """ACC002: all outputs changed at 0 to 9 % right are no pass, however many are asked."""
    before = [answer(n, right=n < solved) for n in range(384)]
    after = [answer(n, right=n < solved, output=f"other {n}") for n in range(384)]
    verdict = judge(build, before, after, asked=STRESS)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert [found.code for found in verdict.findings] == ["ACC002"]
    assert verdict.figures["outputs_changed"] == 384
    assert "PP=1 solves too few" in verdict.summary


@pytest.mark.parametrize(
    "asked", [{"profile": Profile.STRESS}, {"mode": Mode.COMPILED}], ids=["stress", "compiled"]
)
def test_identical_answers_outside_parity_need_the_planned_number(build, asked):
    """Four identical answers in other batches are a sample of four."""
    needed = fewest_questions(0.01)
    for count, outcome in ((4, Outcome.INCONCLUSIVE), (needed, Outcome.PASS)):
        answers = [answer(n) for n in range(count)]
        verdict = judge(build, answers, answers, asked=asked)
        assert verdict.outcome is outcome, count


def test_identical_answers_of_invariant_kernels_are_bits(build):
    """Kernels under which PP=1 was seen to repeat itself in other batches need no number."""
    answers = [answer(n) for n in range(4)]
    asked = {"profile": Profile.STRESS, "kernels": Kernels.INVARIANT}
    assert judge(build, answers, answers, asked=asked).outcome is Outcome.PASS


def test_changed_outputs_pass_with_enough_questions(build):
    """A change that moves no score passes once the bound is below the margin."""
    # 1 - 0.049**(1/n) < 0.01 from n = 301 on.
    for count, outcome in ((300, Outcome.INCONCLUSIVE), (301, Outcome.PASS)):
        before = [answer(n) for n in range(count)]
        after = [answer(n) for n in range(count)]
        after[0]["output"] += " "
        assert judge(build, before, after, asked=STRESS).outcome is outcome


def test_flips_within_the_margin_pass_and_are_shown(build):
    """ACC004: a pass in which answers flipped still shows each of them."""
    before = [answer(n, right=n != 0) for n in range(200)]
    after = [answer(n, right=n != 1) for n in range(200)]
    verdict = judge(build, before, after, asked=STRESS, margin=0.05)
    assert verdict.outcome is Outcome.PASS
    (found,) = verdict.findings
    assert (found.code, found.severity) == ("ACC004", Severity.INFO)
    assert [one["change"] for one in found.evidence["examples"]] == ["lost", "won"]
    assert verdict.figures["fall_low"] < 0 < verdict.figures["fall_bound"] < 0.05


def test_margin_decides(build):
    """A wider margin, given beforehand, turns an open question into a pass."""
    before = [answer(n) for n in range(100)]
    after = [answer(n, output="longer #### 1") for n in range(100)]
    assert judge(build, before, after, asked=STRESS).outcome is Outcome.INCONCLUSIVE
    assert judge(build, before, after, asked=STRESS, margin=0.05).outcome is Outcome.PASS


def test_score_that_moves_under_an_equal_output_is_no_pass(build):
    """Equal outputs with other scores are a change: they must not pass as identical."""
    before = [answer(n) for n in range(20)]
    after = [answer(n, right=False, output="#### 1") for n in range(20)]
    assert judge(build, before, after).outcome is Outcome.FAIL


def test_one_token_that_differs_in_the_same_batches_fails(build):
    """ACC006: in parity an answer that differs is no rounding, however many are right."""
    before, after = [answer(n) for n in range(400)], [answer(n) for n in range(400)]
    after[7] |= answer(7, output="#### 1.")
    verdict = judge(build, before, after)
    assert verdict.outcome is Outcome.FAIL
    (found,) = verdict.findings
    assert found.code == "ACC006"
    assert "1 of 400 answers differ in the same batches: question 7 first, at place 6" in (
        verdict.summary
    )
    assert [one["question"] for one in found.evidence["examples"]] == ["question 7"]
    assert judge(build, before, after, asked=STRESS).outcome is Outcome.PASS


def test_a_token_behind_an_equal_text_counts(build):
    """ACC006: the text is cut at the stop string, the tokens are what was computed."""
    before, after = [answer(0)], [answer(0)]
    after[0]["tokens"] = [*after[0]["tokens"], 5]
    assert judge(build, before, after).findings[0].code == "ACC006"


def test_what_pp_1_changes_by_itself_stands_beside(build):
    """Under stress both numbers are told: outputs that differ at PP=N, and at PP=1 asked again."""
    before = [answer(n) for n in range(10)]
    after = [answer(n, right=n > 0) for n in range(10)]
    again = [answer(n, right=n > 1) for n in range(10)]
    verdict = judge(build, before, after, asked=STRESS, again=again)
    assert (
        "1 of 10 outputs differ (2 differ at PP=1 asked again in other batches, 2 lost, 0 won)"
        in (verdict.summary)
    )
    assert verdict.figures["repeat_changed"] == verdict.figures["repeat_lost"] == 2


def test_invariant_kernels_must_repeat_answers_to_decide_by_bits(build):
    """Kernels that change answers of PP=1 in other batches are not invariant for answers."""
    before, after = [answer(0), answer(1)], [answer(0), answer(1, right=False)]
    asked = STRESS | {"kernels": Kernels.INVARIANT}
    assert judge(build, before, after, asked=asked, again=before).findings[0].code == "ACC006"
    moved = judge(build, before, after, asked=asked, again=after)
    assert moved.findings[0].code == "ACC002"
