"""How often an upper bound of the fall lies below the true fall, at worst.

    python benchmarks/coverage.py [--counts N ...]

Every outcome of N questions is weighed by its chance, for true shares lost and won on a grid, so
that nothing is drawn at random. Bounds: that of the harness, Tango's score limit alone, and the
difference of two exact bounds (Clopper and Pearson), each at half the error. All claim 95 %. The
width is the mean of a bound over all outcomes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from harness.checks.accuracy.paired import fall_bound, score_limit

GRID = (0.0, 0.002, 0.005, *np.linspace(0.01, 1.0, 100).tolist())


def two_exact(lost: int, won: int, count: int) -> float:
    """Return the bound that the harness had before: conservative in each of its parts."""
    from scipy.stats import binomtest

    high = binomtest(lost, count).proportion_ci(0.95, method="exact").high
    return float(high - binomtest(won, count).proportion_ci(0.95, method="exact").low)


BOUNDS: dict[str, Callable[[int, int, int], float]] = {
    "harness": fall_bound,
    "score": score_limit,
    "two exact": two_exact,
}


def main() -> None:
    """Print the worst chance of a miss and the mean width of each bound."""
    from scipy.stats import multinomial

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 4, 8, 12, 20, 30])
    options = parser.parse_args()
    print("worst chance that the bound is below the true fall (mean bound)")
    print(f"{'questions':>9}" + "".join(f"{name:>18}" for name in BOUNDS))
    for count in options.counts:
        outcomes = [
            (lost, won, count - lost - won)
            for lost in range(count + 1)
            for won in range(count + 1 - lost)
        ]
        bounds = {
            name: np.array([bound(lost, won, count) for lost, won, _ in outcomes])
            for name, bound in BOUNDS.items()
        }
        worst = dict.fromkeys(BOUNDS, 0.0)
        for lose in GRID:
            for win in GRID:
                if lose + win > 1:
                    continue
                chances = multinomial.pmf(outcomes, count, (lose, win, 1 - lose - win))
                for name, values in bounds.items():
                    missed = float(chances[values < lose - win - 1e-9].sum())
                    worst[name] = max(worst[name], missed)
        cells = (f"{worst[name]:10.4f} ({values.mean():.3f})" for name, values in bounds.items())
        print(f"{count:9}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
