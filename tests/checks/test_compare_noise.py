"""How far rounding may move a row: derived from a run against itself."""

import numpy as np
import pytest

from harness.checks.logits.noise import FALSE_ALARM, tolerance


@pytest.mark.parametrize("seed", range(5))
def test_rounding_stays_within_the_limit(seed):
    """Rows that move as the floor moves stay within it, a hundred times over."""
    draw = np.random.default_rng(seed)
    floor = np.exp(draw.normal(-14, 0.8, 200))
    limit = tolerance(floor, 1000, "float32", 8).limit
    assert max(np.exp(draw.normal(-14, 0.8, 1000)).max() for _ in range(100)) < limit


def test_the_limit_is_the_quantile_that_it_claims():
    """One row exceeds it with the chance that Bonferroni leaves to each of them."""
    floor = np.exp(np.random.default_rng(1).normal(0.0, 1.0, 200_000))
    limit = tolerance(floor, 1, "float32", 8).limit
    from scipy.stats import norm

    assert norm.sf(np.log(limit)) == pytest.approx(FALSE_ALARM, rel=0.2)


def test_more_rows_allow_more():
    """The largest of many moves further than the largest of few."""
    floor = np.exp(np.random.default_rng(2).normal(-10, 1.0, 50))
    limits = [tolerance(floor, rows, "float32", 8).limit for rows in (1, 100, 10_000)]
    assert limits == sorted(limits)
    assert limits[0] < limits[2]


def test_never_below_what_was_seen():
    """A row that rounding has moved so far is allowed to, whatever a fit says."""
    floor = np.array([1e-7] * 20 + [1e-2])
    assert tolerance(floor, 10, "float32", 8).limit >= 1e-2


@pytest.mark.parametrize("floor", [[], [0.0] * 100, [0.0] * 93 + [1e-9] * 7])
def test_too_few_that_moved_fall_back_to_one_rounding_a_layer(floor):
    """Where there is nothing to fit, the limit is the dtype's own, and it is said."""
    found = tolerance(np.array(floor), 100, "float32", 10)
    assert found.limit == 10 * 2.0**-23
    assert "too few to fit" in found.reason
    assert tolerance(np.array(floor), 100, "bfloat16", 10).limit == 10 * 2.0**-7


def test_what_is_not_finite_is_no_floor():
    """A NaN at PP=1 does not make everything allowed."""
    found = tolerance(np.array([np.nan, np.inf, 0.0]), 100, "float32", 1)
    assert found.limit == 2.0**-23
