"""docs/numbers.md names every figure that the page shows, and its examples are computed."""

import re
from pathlib import Path

from harness.checks.accuracy.accuracy import compare_accuracy
from harness.checks.accuracy.paired import fall_bound, mcnemar
from harness.checks.registry import checks
from harness.engine.settings import Profile

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "numbers.md").read_text(encoding="utf-8")


def test_every_figure_is_explained():
    """A figure that a check registers has its computation on the page of numbers."""
    names = set(re.findall(r"`(\w+)`", PAGE))
    figures = {figure.name for check in checks() for figure in check.figures}
    assert figures - {"floor"} <= names
    assert "noise floor" in PAGE


def test_the_examples_are_right(tmp_path):
    """Each row of the table of accuracies is what the check makes of such answers."""
    from builders import CaptureBuilder, answer

    rows = re.findall(
        r"^\| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| (\w+) \|$", PAGE, re.MULTILINE
    )
    assert len(rows) == 6
    for place, (*counts, p, bound, verdict) in enumerate(rows):
        n, lost, won = map(int, counts)
        assert f"{mcnemar(lost, won):.4g}" == p
        assert f"{fall_bound(lost, won, n):.4g}" == bound
        sides = []
        for pp in (1, 2):
            built = CaptureBuilder(tmp_path / f"{place}-{pp}", pp=pp)
            # The first `lost` turn wrong at PP=2, the next `won` turn right; the last only reads
            # otherwise, so that an output differs even where nothing is lost.
            built.answers = [
                answer(
                    number, right=(number >= lost) if pp == 2 else not lost <= number < lost + won
                )
                for number in range(n)
            ]
            if pp == 2:
                built.answers[-1]["output"] += " "
            built.asked(profile=Profile.STRESS)
            sides.append(built.save())
        assert compare_accuracy(*sides).outcome.value == verdict, (n, lost, won)
