"""The registry: which checks there are, in which order, and what a name may mean."""

import dataclasses

import pytest

from harness.checks import registry
from harness.checks.finding import Outcome, Verdict
from harness.checks.judge import judge
from harness.checks.registry import (
    Check,
    Comparison,
    Need,
    check_names,
    figure_of,
    find_check,
    in_order,
)


def always_passes(pair):
    return Verdict(Outcome.PASS, f"PP={pair.candidate.cell.pp}")


@pytest.fixture
def register(monkeypatch):
    """Return a function that registers a check for the length of a test."""
    check_names()  # those that ship are registered first
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    return registry.register


def test_checks_that_ship_register_themselves():
    """Each module of a check is found; the engine comes first, since the others depend on it."""
    assert check_names() == ("engine", "contract", "logits", "accuracy")
    assert check_names()[0] == registry.ENGINE


def test_a_check_stands_at_its_place(register):
    """A new check comes where its order puts it, and is judged by its name."""
    register(Check("latency", 35, Need(0), always_passes))
    assert check_names() == ("engine", "contract", "logits", "latency", "accuracy")
    assert find_check("latency").judge is always_passes


def test_a_name_belongs_to_one_module(register):
    """Another module cannot take the name of a check; the same one may be imported again."""
    with pytest.raises(ValueError, match=r"harness\.checks\.logits\.logits has registered"):
        register(Check("logits", 35, Need(0), always_passes))
    assert register(find_check("logits")) is find_check("logits")


def test_names_that_are_not_registered_come_last():
    """A report of another version keeps its checks: known ones in order, then the others."""
    names = ["speed", "accuracy", "engine", "speed", "memory"]
    assert in_order(names) == ("engine", "accuracy", "speed", "memory")


def test_a_figure_has_its_unit_and_an_unknown_one_its_name():
    """Labels are those of the check: two checks may have figures of one name."""
    assert figure_of("logits", "kl").title == "largest KL divergence of a row (nats)"
    assert figure_of("accuracy", "baseline").title == "accuracy at PP=1"
    assert figure_of("engine", "baseline").title == "baseline"
    assert figure_of("speed", "seconds").title == "seconds"


@pytest.mark.parametrize(
    ("needs", "spoil", "outcome", "summary"),
    [
        (Need.CANDIDATE, lambda one, many: one.fail(), Outcome.PASS, "PP=2"),
        (Need.CANDIDATE, lambda one, many: many.fail(), Outcome.BLOCKED, "blocked by ENG001"),
        (Need.BASELINE, lambda one, many: one.fail(), Outcome.BLOCKED, "blocked by ENG004"),
        (Need.BASELINE, lambda one, many: many.fail(), Outcome.PASS, "PP=2"),
        (Need.BOUNDARY, lambda one, many: many.fail(), Outcome.PASS, "PP=2"),
        (
            Need.TOKENIZER,
            lambda one, many: many.asked(gsm8k=None),
            Outcome.NOT_APPLICABLE,
            "a shape has no tokenizer",
        ),
        (Need(0), lambda one, many: (one.fail(), many.fail()), Outcome.PASS, "PP=2"),
    ],
)
def test_needs_say_what_stands_in_the_way(register, build, needs, spoil, outcome, summary):
    """A check is judged where its own needs are met, and only there."""
    register(Check("latency", 35, needs, always_passes))
    baseline, candidate = build(pp=1), build(pp=2)
    spoil(baseline, candidate)
    verdict = judge("latency", Comparison(baseline.save(), candidate.save()))
    assert verdict.outcome is outcome
    assert verdict.summary.startswith(summary)


def test_a_check_that_saw_too_little_is_blocked_by_the_engine(register, build):
    """Without an answer of its own it points at the engine's failure, not at its own silence."""
    blocked = dataclasses.replace(
        find_check("contract"),
        name="latency",
        judge=lambda pair: Verdict(Outcome.BLOCKED, "no time was seen"),
    )
    register(blocked)
    verdict = judge("latency", Comparison(build(pp=1).save(), build(pp=2).fail().save()))
    assert verdict.summary.startswith("blocked by ENG001")
    whole = judge("latency", Comparison(build(pp=1).save(), build(pp=2).save()))
    assert (whole.outcome, whole.summary) == (Outcome.BLOCKED, "no time was seen")
