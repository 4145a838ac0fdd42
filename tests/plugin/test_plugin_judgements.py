"""What becomes of an item by the kind of its judgement: nothing unknown passes."""

import pytest

from harness.checks.expectations import Judgement, JudgementKind
from harness.plugin.run import Run

OUTCOMES = {
    JudgementKind.OK: {"passed": 1},
    JudgementKind.EXPECTED: {"xfailed": 1},
    JudgementKind.NOT_APPLICABLE: {"skipped": 1},
    JudgementKind.UNEXPECTED: {"failed": 1},
    "unexpektd": {"failed": 1},
    "": {"failed": 1},
    None: {"failed": 1},
}


@pytest.mark.parametrize("kind", OUTCOMES)
def test_every_kind_has_one_outcome_and_an_unknown_one_fails(suite, monkeypatch, kind):
    """A judgement that is none of the kinds that may end green fails, whatever it is called."""
    judge = Run.judge

    def judge_as(self, check, point, item):
        _, record = judge(self, check, point, item)
        return Judgement(kind, "the reason"), record

    monkeypatch.setattr(Run, "judge", judge_as)
    run = ("--pp", "2", "--pp-variant", "fixed", "--pp-model", "dense", "-k", "engine")
    result = suite(*run)
    result.assert_outcomes(**OUTCOMES[kind])
    if "failed" in OUTCOMES[kind]:
        result.stdout.fnmatch_lines(["*the reason*"])


def test_every_known_kind_is_told_apart():
    """A kind that is added must say here how its items end."""
    assert set(JudgementKind) <= set(OUTCOMES)
