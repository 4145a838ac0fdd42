"""Statistics of paired questions, against sums over all outcomes."""

import bisect
import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.checks.accuracy.paired import fall_bound, mcnemar, score
from harness.checks.accuracy.power import fewest_questions, questions_needed

BOUND = lru_cache(maxsize=None)(fall_bound)


def outcomes(count):
    """Return every outcome of `count` questions as rows of lost, won, kept."""
    return np.array(
        [
            (lost, won, count - lost - won)
            for lost in range(count + 1)
            for won in range(count + 1 - lost)
        ]
    )


def chances(rows, lose, win):
    """Return the chance of each outcome if shares `lose` and `win` of the questions flip."""
    ways = [
        math.comb(sum(row), row[0]) * math.comb(row[1] + row[2], row[1]) for row in rows.tolist()
    ]
    keep = max(0.0, 1 - lose - win)
    return np.array(ways, float) * (np.array([lose, win, keep]) ** rows).prod(axis=1)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_against_summed_binomials(lost, won):
    """The p-value is the chance of at least `lost` heads in `lost + won` fair tosses."""
    total = lost + won
    exact = sum(math.comb(total, k) for k in range(lost, total + 1)) / 2**total
    assert mcnemar(lost, won) == pytest.approx(exact, rel=1e-9)


@given(st.integers(1, 60), st.floats(-0.9, 0.9), st.data())
def test_score_divides_by_the_likeliest_spread(count, fall, data):
    """Tango's statistic: what was seen less `fall`, over its deviation at the likeliest shares."""
    lost = data.draw(st.integers(0, count))
    won = data.draw(st.integers(0, count - lost))
    wins = np.linspace(max(0.0, -fall), min(1.0, (1 - fall) / 2), 20001)
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = sum(
            np.where(number > 0, number * np.log(np.maximum(share, 0)), 0.0)
            for number, share in (
                (lost, wins + fall),
                (won, wins),
                (count - lost - won, 1 - fall - 2 * wins),
            )
        )
    likeliest = wins[np.argmax(likelihood)]
    spread = 2 * likeliest + fall - fall**2
    if spread < 1e-3:
        return  # a difference of rounding, divided by nearly nothing
    expected = (lost - won - count * fall) / math.sqrt(count * spread)
    assert score(lost, won, count, fall) == pytest.approx(expected, abs=0.05, rel=0.02)


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_bound_covers_the_fall(count):
    """Over all outcomes, weighed by their chance, the bound misses no true fall in over 5 %."""
    rows = outcomes(count)
    bounds = np.array([BOUND(int(lost), int(won), count) for lost, won, _ in rows])
    shares = [0.0, 0.002, 0.005, *np.linspace(0.01, 1, 67)]
    worst = max(
        chances(rows, lose, win)[bounds < lose - win - 1e-9].sum()
        for lose in shares
        for win in shares
        if lose + win <= 1 + 1e-12
    )
    assert worst <= 0.05
    assert worst > 0.03, "a bound that misses less is wider than it must be"


@pytest.mark.parametrize(("lost", "won", "count"), [(0, 0, 1319), (5, 5, 1319), (20, 20, 1319)])
def test_bound_is_below_that_of_two_exact_intervals(lost, won, count):
    """It is sharper than two bounds of Clopper and Pearson, each at half the error."""
    from scipy.stats import binomtest

    high = binomtest(lost, count).proportion_ci(0.95, method="exact").high
    low = binomtest(won, count).proportion_ci(0.95, method="exact").low
    assert BOUND(lost, won, count) < 0.85 * (high - low)


@settings(max_examples=25)
@given(st.integers(1, 150), st.data())
def test_bound_lies_above_what_was_seen_and_follows_it(count, data):
    """It is never below the fall that was seen nor above 1, and a loss more never lowers it."""
    lost = data.draw(st.integers(0, count))
    won = data.draw(st.integers(0, count - lost))
    bound = BOUND(lost, won, count)
    assert (lost - won) / count <= bound <= 1
    if lost + won < count:
        assert bound <= BOUND(lost + 1, won, count) + 1e-5


@pytest.mark.parametrize("count", [1, 8, 299, 1319])
def test_bound_without_a_flip_is_the_exact_one(count):
    """With nothing lost and won it is the fall at which no loss has a chance of 4.9 %."""
    assert BOUND(0, 0, count) == pytest.approx(1 - 0.049 ** (1 / count), abs=2e-6)


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05])
def test_fewest_questions_are_those_of_the_bound(margin):
    """So many questions without a flip exclude a fall of the margin, and one less does not."""
    count = fewest_questions(margin)
    assert BOUND(0, 0, count) < margin <= BOUND(0, 0, count - 1)


@pytest.mark.parametrize(("margin", "flips"), [(0.25, 0.1), (0.25, 0.25)])
def test_questions_needed_against_the_power_of_the_bound(margin, flips):
    """With as many questions as are said, a pass has about the chance that is asked for."""
    count = questions_needed(margin, flips, power=0.8)
    rows = outcomes(count)
    likely = rows[chances(rows, flips / 2, flips / 2) > 1e-7]
    most = {won: most_lost(won, count, margin) for won in sorted(set(likely[:, 1].tolist()))}
    passing = np.array([lost <= most[won] for lost, won, _ in likely.tolist()])
    power = chances(likely, flips / 2, flips / 2)[passing].sum()
    assert 0.7 < power < 0.9


def most_lost(won, count, margin):
    """Return the most losses beside `won` whose bound is below `margin`; a loss more raises it."""
    tried = range(count - won + 1)
    return bisect.bisect_left(tried, margin, key=lambda lost: BOUND(lost, won, count)) - 1


def test_questions_needed_grow_with_flips_and_shrink_with_the_margin():
    """More flips take more questions, a wider margin fewer, and none falls below the fewest."""
    counts = [questions_needed(0.01, flips) for flips in (0.0, 0.01, 0.02, 0.05, 0.1)]
    assert counts == sorted(set(counts))
    assert counts[0] == fewest_questions(0.01)
    assert questions_needed(0.02) < questions_needed(0.01)
