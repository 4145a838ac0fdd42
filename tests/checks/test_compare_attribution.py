"""Which patch is behind a finding, at PP=N and at PP=1."""

import pytest

from harness.checks.attribution import Judged, Prefix, attribute, attribute_baselines
from harness.checks.finding import Outcome
from harness.plan.points import Point

SERIES = (
    Prefix("base", ()),
    Prefix("merged", ("0001-merge.patch",)),
    Prefix("fixed", ("0001-merge.patch", "0002-read.patch")),
)


def judged(**variants):
    """Return what `attribute` takes: verdicts by point and check, from verdicts by variant."""
    return {
        (Point(variant, "ple", 2), check): verdict
        for variant, verdicts in variants.items()
        for check, verdict in verdicts.items()
    }


def shown(outcome, *codes):
    return Judged(Outcome(outcome), frozenset(codes))


def test_the_founding_series_is_told_as_it_is():
    """0001 fixes the crash and reveals wrong logits, 0002 fixes those."""
    found = attribute(
        SERIES,
        judged(
            base={"engine": shown("fail", "ENG001"), "logits": shown("blocked")},
            merged={"engine": shown("pass"), "logits": shown("fail", "LOG001")},
            fixed={"engine": shown("pass"), "logits": shown("pass")},
        ),
    )
    assert [(one.patches, one.effect, one.check, one.codes) for one in found] == [
        (("0001-merge.patch",), "fixed", "engine", ("ENG001",)),
        (("0001-merge.patch",), "revealed", "logits", ("LOG001",)),
        (("0002-read.patch",), "fixed", "logits", ("LOG001",)),
    ]
    assert found[1].message.startswith("0001-merge.patch revealed LOG001 (logits of ple at PP=2")


@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        (shown("pass"), shown("fail", "LOG001"), "introduced"),
        (shown("fail", "LOG001"), shown("blocked"), "hidden"),
        (shown("fail", "LOG001"), shown("fail", "LOG001", "LOG002"), "introduced"),
    ],
)
def test_what_a_patch_can_do(before, after, effect):
    """Breaking what passed and hiding what failed are not the same."""
    verdicts = judged(base={"logits": before}, merged={"logits": after})
    (one,) = attribute(SERIES[:2], verdicts)
    assert one.effect == effect


def test_variants_that_were_left_out_join_their_patches():
    """With base and fixed only, both patches between them are named."""
    verdicts = judged(base={"logits": shown("pass")}, fixed={"logits": shown("fail", "LOG001")})
    (one,) = attribute(SERIES, verdicts)
    assert one.patches == ("0001-merge.patch", "0002-read.patch")


def test_a_checkout_has_no_patches_to_name():
    """Variants without patches are not put in an order."""
    verdicts = judged(base={"logits": shown("pass")}, worktree={"logits": shown("fail", "LOG001")})
    assert attribute((Prefix("base", ()), Prefix("worktree", ())), verdicts) == []


def test_a_patch_that_moves_pp_1_is_named_with_figures(build):
    """Other logits at PP=1 change the model itself: another statement than a broken PP."""
    moved = build(pp=1)
    for row in moved.logits.values():
        row[0] += 1.0
    captures = {"base": build(pp=1).save(), "merged": build(pp=1).save(), "fixed": moved.save()}
    baselines = {Point(variant, "ple", 1): capture for variant, capture in captures.items()}
    (one,) = attribute_baselines(SERIES, baselines)
    assert (one.patches, one.pp, one.effect) == (("0002-read.patch",), 1, "moved")
    assert one.figures["max_abs"] == 1.0


@pytest.mark.parametrize(("side", "effect"), [(0, "fixed"), (1, "broke")])
def test_a_patch_that_breaks_or_fixes_pp_1_is_named(build, side, effect):
    """An engine that has no answer at PP=1 any more, or has one again."""
    sides = [build(pp=1), build(pp=1)]
    sides[side].fail(error="ValueError: no")
    before, after = (one.save() for one in sides)
    baselines = {Point("base", "m", 1): before, Point("merged", "m", 1): after}
    (one,) = attribute_baselines(SERIES[:2], baselines)
    assert one.effect == effect
    assert "ValueError: no" in one.message
