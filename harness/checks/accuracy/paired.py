"""Statistics of paired questions: only changes count (docs/evidence.md has the formulas).

Of `count` questions asked twice, `lost` turned wrong, `won` turned right, and the rest kept their
score. The fall of accuracy is (lost - won) / count, a share of the questions.
"""

from math import asin, ceil, floor, log, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from .power import ALPHA, OUTSIDE

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
# Quantile of the normal distribution for one side.
_Z = NormalDist().inv_cdf(1 - ALPHA)
# Wins whose chances are all below this are not summed, and counted as if they missed.
_NEGLIGIBLE = 1e-13
# Step of the search for the worst share of wins, in standard deviations of their number, so that it
# is as fine for few wins as for many; and how many steps it takes at least.
_STEP, _FEWEST_STEPS = 0.125, 24


def mcnemar(lost: int, won: int) -> float:
    """Exact one-sided p-value of at least `lost` losses among the changed questions."""
    from scipy.stats import binomtest

    if lost + won == 0:
        return 1.0
    return float(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue)


def score(lost: Any, won: Any, count: int, fall: float) -> Any:
    """Tango's score statistic of a true `fall`; below 0 where less than that was seen."""
    spread = 2 * _likeliest_wins(lost, won, count, fall) + fall * (1 - fall)
    seen = np.asarray(lost - won - count * fall, float)
    error = np.sqrt(np.maximum(count * spread, 0.0))
    return np.divide(seen, error, out=np.zeros_like(seen), where=error > 0)


def _likeliest_wins(lost: Any, won: Any, count: int, fall: float) -> Any:
    """Likeliest share of wins if the shares lost and won differ by `fall`."""
    b = (2 * count - lost + won) * fall - lost - won
    c = won * fall * (1 - fall)
    return (np.sqrt(np.maximum(b * b + 8 * count * c, 0.0)) - b) / (4 * count)


def score_limit(lost: int, won: int, count: int) -> float:
    """Tango's upper 95 % limit of the fall: near for many flips, too low for few."""
    return _root(lambda fall: float(score(lost, won, count, fall)), -_Z)


def fall_bound(lost: int, won: int, count: int) -> float:
    """Upper bound of the fall that holds with 95 %, whatever the fall and the flips are.

    Exact: the largest fall at which no more than what was seen has a chance of 5 %, outcomes being
    ordered by Tango's limits, at the worst share of wins that `won` allows.
    """
    from scipy.stats import binomtest

    limit = score_limit(lost, won, count)
    if limit == 1:
        return 1.0
    most = _most_lost(count, limit)
    wins = binomtest(won, count).proportion_ci(1 - OUTSIDE, method="exact")
    return _root(lambda fall: _worst_chance(most, count, fall, wins), ALPHA - OUTSIDE)


def _most_lost(count: int, limit: float) -> Counts:
    """Most losses whose score limit is at most `limit`, or -1, by number of wins."""
    won = np.arange(count + 1)
    low, high = np.full(count + 1, -1), count - won
    while (low < high).any():
        middle = (low + high + 1) // 2
        inside = score(middle, won, count, limit) <= -_Z + 1e-9
        low, high = np.where(inside, middle, low), np.where(inside, high, middle - 1)
    return low


def _worst_chance(most: Counts, count: int, fall: float, wins: tuple[float, float]) -> float:
    """Largest chance, over the shares `wins`, of losing no more than `most`."""
    least, highest = wins
    if highest < -fall:
        return 1.0  # so low a fall takes more wins than are allowed: it is no bound yet
    if least > (1 - fall) / 2:
        return 0.0  # so high a fall takes more flips than there are questions
    ends = (max(least, -fall, 0.0), min(highest, (1 - fall) / 2))
    # The angle of a share whose step is the same number of standard deviations everywhere.
    low, high = (asin(sqrt(share)) for share in ends)
    steps = max(_FEWEST_STEPS, ceil(2 * sqrt(count) * (high - low) / _STEP))
    angles = np.linspace(low, high, steps + 1)
    worst = 0.0
    for _ in range(2):
        chances = _chances(most, count, fall, np.sin(angles) ** 2)
        best = int(np.argmax(chances))
        worst = max(worst, float(chances[best]))
        angles = np.linspace(angles[max(best - 1, 0)], angles[min(best + 1, len(angles) - 1)], 9)
    return worst


def _chances(most: Counts, count: int, fall: float, shares: Floats) -> Floats:
    """Chance of losing no more than `most`, for each share won; `fall` more is lost than won."""
    from scipy.special import bdtr
    from scipy.stats import binom

    # Further from their mean than this, wins are negligible (Hoeffding 1963, theorem 1).
    reach = sqrt(count * log(2 / _NEGLIGIBLE) / 2)
    least = max(0, floor(count * shares.min() - reach))
    won = np.arange(least, min(count, ceil(count * shares.max() + reach)) + 1)
    won = won[most[won] >= 0]
    wins = binom.pmf(won, count, shares[:, None])
    kept = (wins > _NEGLIGIBLE).any(axis=0)
    won, wins = won[kept], wins[:, kept]
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = np.where(shares < 1, np.maximum(shares + fall, 0.0) / (1 - shares), 0.0)
    lost = bdtr(most[won], count - won, np.minimum(chance, 1.0)[:, None])
    chances: Floats = (wins * lost).sum(axis=1) + count * _NEGLIGIBLE
    return chances


def _root(of: Any, target: float) -> float:
    """Where a function that falls from -1 to 1 meets `target`, from above, within 1e-6."""
    low, high = -1.0, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) > target else (low, middle)
    return high
