"""Which patch is behind a finding, at PP=N and at PP=1."""

import pytest

from harness.checks.attribution import Judged, Prefix, attribute, attribute_baselines

SERIES = (
    Prefix("base", ()),
    Prefix("merged", ("0001-merge.patch",)),
    Prefix("fixed", ("0001-merge.patch", "0002-read.patch")),
)
LOGITS = ("ple", 2, "parity", 1, "logits")
ENGINE = ("ple", 2, "parity", 1, "engine")


def said(outcome, *codes):
    return Judged(outcome, frozenset(codes))


def test_the_founding_series_is_told_as_it_is():
    """0001 cures the crash and reveals wrong logits, 0002 cures those."""
    found = attribute(
        SERIES,
        {
            "base": {ENGINE: said("fail", "ENG001"), LOGITS: said("blocked")},
            "merged": {ENGINE: said("pass"), LOGITS: said("fail", "LOG001")},
            "fixed": {ENGINE: said("pass"), LOGITS: said("pass")},
        },
    )
    assert [(one.patches, one.effect, one.check, one.codes) for one in found] == [
        (("0001-merge.patch",), "cured", "engine", ("ENG001",)),
        (("0001-merge.patch",), "revealed", "logits", ("LOG001",)),
        (("0002-read.patch",), "cured", "logits", ("LOG001",)),
    ]
    assert found[1].message.startswith("0001-merge.patch revealed LOG001 (logits of ple at PP=2")


@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        (said("pass"), said("fail", "LOG001"), "introduced"),
        (said("fail", "LOG001"), said("blocked"), "hidden"),
        (said("fail", "LOG001"), said("fail", "LOG001", "LOG002"), "introduced"),
    ],
)
def test_what_a_patch_can_do(before, after, effect):
    """Breaking what passed and hiding what failed are not the same."""
    (one,) = attribute(SERIES[:2], {"base": {LOGITS: before}, "merged": {LOGITS: after}})
    assert one.effect == effect


def test_variants_that_were_left_out_join_their_patches():
    """With base and fixed only, both patches between them are named."""
    (one,) = attribute(
        SERIES, {"base": {LOGITS: said("pass")}, "fixed": {LOGITS: said("fail", "LOG001")}}
    )
    assert one.patches == ("0001-merge.patch", "0002-read.patch")


def test_a_checkout_has_no_patches_to_name():
    """Variants without patches are not put in an order."""
    judged = {"base": {LOGITS: said("pass")}, "worktree": {LOGITS: said("fail", "LOG001")}}
    assert attribute((Prefix("base", ()), Prefix("worktree", ())), judged) == []


def test_a_patch_that_moves_pp_1_is_named_with_figures(build):
    """Other logits at PP=1 change the model itself: another statement than a broken PP."""
    moved = build(pp=1)
    for row in moved.logits.values():
        row[0] += 1.0
    captures = {"base": build(pp=1).save(), "merged": build(pp=1).save(), "fixed": moved.save()}
    (one,) = attribute_baselines(SERIES, {name: {"ple": c} for name, c in captures.items()})
    assert (one.patches, one.pp, one.effect) == (("0002-read.patch",), 1, "moved")
    assert one.figures["max_abs"] == 1.0


@pytest.mark.parametrize(("side", "effect"), [(0, "mended"), (1, "broke")])
def test_a_patch_that_breaks_or_mends_pp_1_is_named(build, side, effect):
    """An engine that has no answer at PP=1 any more, or has one again."""
    sides = [build(pp=1), build(pp=1)]
    sides[side].fail(error="ValueError: no")
    before, after = (one.save() for one in sides)
    (one,) = attribute_baselines(SERIES[:2], {"base": {"m": before}, "merged": {"m": after}})
    assert one.effect == effect
    assert "ValueError: no" in one.message
