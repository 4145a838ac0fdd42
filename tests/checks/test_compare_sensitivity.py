"""Equal logits are trusted only where unequal ones were possible."""

import dataclasses
import math

import pytest

from harness.checks.finding import Outcome
from harness.checks.judge import judge
from harness.checks.logits.sensitivity import blind_spots
from harness.checks.registry import Comparison
from harness.engine.settings import DRAFTS

KEYS = {"hidden_states": [8], "per_layer_inputs": [2]}


def test_what_moved_is_trusted_and_shown(build):
    """Every perturbation that was asked for moved the logits: the pass stands, with its figures."""
    verdict = judge("logits", Comparison(build(pp=1).save(), build(pp=3, keys=KEYS).save()))
    assert verdict.outcome is Outcome.PASS
    assert set(verdict.figures["sensitivity"]) == {
        "weight:embed.weight",
        "weight:layers.*.mlp.weight",
        "key:0:hidden_states",
        "key:0:per_layer_inputs",
        "key:1:hidden_states",
        "key:1:per_layer_inputs",
    }


@pytest.mark.parametrize(
    ("side", "name"),
    [(0, "weight:layers.*.mlp.weight"), (1, "key:1:per_layer_inputs")],
)
@pytest.mark.parametrize("how", ["moved nothing", "never tried"])
def test_a_blind_spot_makes_it_inconclusive(build, side, name, how):
    """A weight kind or key that does not show is named: equal logits prove nothing."""
    sides = [build(pp=1), build(pp=3, keys=KEYS)]
    if how == "moved nothing":
        sides[side].effects[name] = 0.0
    else:
        del sides[side].effects[name]
    verdict = judge("logits", Comparison(*(one.save() for one in sides)))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    (finding,) = verdict.findings
    assert finding.code == "LOG004"
    assert finding.evidence == {"blind_to": [name]}
    assert name in verdict.summary


@pytest.mark.parametrize("effect", [0.0, None, 0.5], ids=["moves nothing", "not tried", "moves"])
def test_an_adapter_must_show(build, effect):
    """vLLM 0.20.2 loads one for some models and applies none of it (issue 39815)."""
    sides = [build(pp=1), build(pp=2)]
    for side in sides:
        side.asked(engine_args=(("enable_lora", "true"),))
    if effect is not None:
        sides[0].effects["adapter"] = effect
    verdict = judge("logits", Comparison(*(one.save() for one in sides)))
    blind = [finding.evidence["blind_to"] for finding in verdict.findings]
    assert blind == ([] if effect else [["adapter"]])


@pytest.mark.parametrize("empty", [(), (1,), (1, 2)], ids=["used", "not at PP=1", "not at all"])
def test_a_cache_that_was_asked_for_must_have_given_something(build, empty):
    """One that holds the beginning of no prompt shows nothing: no blocks came from the host."""
    sides = [build(pp=1), build(pp=2)]
    for side in sides:
        side.asked(engine_args=(("enable_prefix_caching", "true"),))
        side.cached["one"] = 0 if side.pp in empty else 2
    verdict = judge("logits", Comparison(*(one.save() for one in sides)))
    said = "blocks of the prefix cache at PP={}: it held the beginning of no prompt"
    blind = [finding.evidence["blind_to"] for finding in verdict.findings]
    assert blind == ([[said.format(pp) for pp in empty]] if empty else [])


def test_drafts_that_were_asked_for_must_have_come(build):
    """An engine that drafts nothing has computed what it computes without."""
    sides = [build(pp=pp).asked(engine_args=((DRAFTS, '{"method": "ngram"}'),)) for pp in (1, 2)]
    verdict = judge("logits", Comparison(*(one.save() for one in sides)))
    (finding,) = verdict.findings
    assert finding.evidence["blind_to"] == [f"drafts at PP={pp}: none came" for pp in (1, 2)]


def test_what_cannot_matter_is_excused_with_its_reason(build):
    """A weight of a part that does not run for text is no blind spot, and is listed."""
    baseline = build(pp=1)
    baseline.effects["weight:embed.weight"] = 0.0
    baseline.event(0, "excuses")["kinds"] = {"embed.weight": "its module does not run for text"}
    verdict = judge("logits", Comparison(baseline.save(), build(pp=2).save()))
    assert verdict.outcome is Outcome.PASS
    assert verdict.figures["cannot_matter"] == {
        "weight:embed.weight": "its module does not run for text"
    }


@pytest.mark.parametrize("used", [[], [[0, 2]]], ids=["thrown away", "computed with"])
def test_a_key_that_every_later_stage_throws_away_cannot_matter(build, used):
    """Cohere in vLLM 0.33.0 sends a residual that the next layer overwrites before it reads it."""
    candidate = build(pp=3, keys=KEYS)
    for stage in (1, 2):
        candidate.steps(stage)[0]["used"] = {"hidden_states": [[0, 8]], "per_layer_inputs": []}
    candidate.steps(2)[0]["used"]["per_layer_inputs"] = used
    for boundary in (0, 1):
        candidate.effects[f"key:{boundary}:per_layer_inputs"] = 0.0
    verdict = judge("logits", Comparison(build(pp=1).save(), candidate.save()))
    if used:
        assert verdict.outcome is Outcome.INCONCLUSIVE
    else:
        assert verdict.outcome is Outcome.PASS
        reason = "no stage behind the boundary computes with it"
        assert verdict.figures["cannot_matter"] == {
            f"key:{boundary}:per_layer_inputs": reason for boundary in (0, 1)
        }


def test_an_engine_that_tried_nothing_has_shown_nothing(build):
    """No list of perturbations is not an empty list of blind spots."""
    baseline = build(pp=1)
    baseline.forget(0, "weights")
    assert blind_spots(Comparison(baseline.save(), build(pp=2).save()), ()) == (
        "anything at PP=1: nothing was tried",
    )


def test_eager_code_answers_for_weights_that_compiled_code_has_copies_of(build):
    """On a CPU compiled code multiplies by packed copies, which nothing can alter."""
    baseline, candidate, eager = build(pp=1), build(pp=2), build(pp=1)
    baseline.effects["weight:layers.*.mlp.weight"] = 0.0
    pair = Comparison(baseline.save(), candidate.save(), beside=eager.save())
    assert judge("logits", pair).outcome is Outcome.PASS
    assert judge("logits", dataclasses.replace(pair, beside=None)).outcome is Outcome.INCONCLUSIVE


def test_a_perturbation_that_ends_in_no_number_has_moved_the_logits(build):
    """NaN is as far from a number as can be."""
    baseline = build(pp=1)
    baseline.effects["weight:embed.weight"] = math.nan
    verdict = judge("logits", Comparison(baseline.save(), build(pp=2).save()))
    assert verdict.outcome is Outcome.PASS


def test_unequal_logits_stay_a_failure(build):
    """What differs was seen: blindness elsewhere does not soften it."""
    sides = [build(pp=1), build(pp=2)]
    sides[1].effects["key:0:hidden_states"] = 0.0
    sides[1].logits = {
        row: [value + 1 for value in values] for row, values in sides[1].logits.items()
    }
    verdict = judge("logits", Comparison(*(one.save() for one in sides)))
    assert verdict.outcome is Outcome.FAIL
