"""The number of questions that a margin takes (docs/evidence.md has the formulas).

The standard library only: the plan of a run is printed before anything heavy is imported.
"""

from math import ceil, log, log1p, sqrt
from statistics import NormalDist

# The chance of a wrong PASS at a true fall of the whole margin; and of a FAIL if answers that need
# the bits of PP=1, and have not, turn wrong or right by chance alone.
ALPHA = 0.05
# The chance of a FAIL of an honest engine whose answers may differ: 5 % for a night of a hundred.
FALSE_ALARM = 5e-4
# Of it, the chance that the true share of wins lies outside of where `paired` looks for the worst.
OUTSIDE = 0.001
# Assumed before a run: the share of questions that turn right or wrong where outputs differ at all
# and nothing is broken; and the chance of a PASS that is wanted then.
FLIP_RATE, POWER = 0.02, 0.8


def fewest_questions(margin: float) -> int:
    """Number of questions that can show a fall below `margin` if not one of them flips.

    Exact for margins up to 5 points; some more are needed with wider ones.
    """
    return ceil(log(ALPHA - OUTSIDE) / log1p(-margin))


def questions_needed(margin: float, flip_rate: float = FLIP_RATE, power: float = POWER) -> int:
    """Number of questions that show a fall below `margin` with a chance of `power`.

    As many turn wrong as turn right: `flip_rate` of them together. All three are shares of 1.
    """
    b = 2 * margin - flip_rate
    wins = (sqrt(b * b + 4 * flip_rate * margin * (1 - margin)) - b) / 4
    at_margin = sqrt(2 * wins + margin * (1 - margin))
    z = NormalDist().inv_cdf
    error = z(1 - ALPHA) * at_margin + z(power) * sqrt(flip_rate)
    return max(ceil((error / margin) ** 2), fewest_questions(margin))
