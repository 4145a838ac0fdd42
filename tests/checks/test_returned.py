"""What engines return beside tokens: log-probabilities of prompts, and drafts that were taken."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.capture.record import SentProbe, Span
from harness.checks.finding import Outcome
from harness.checks.judge import judge
from harness.checks.logits.returned import Drafts, compare_returned, draft_figures, drafts
from harness.checks.registry import Comparison
from harness.engine.probes import ProbeRequest
from harness.engine.settings import DRAFTS

# Three tokens of prompt, five to take: positions 0 to 6 are inputs.
REQUEST = ProbeRequest("one", (1, 2, 3), (4, 5, 6, 7, 8))
DRAFTED = (("one", 0, 3), ("one", 3, 2))


def side(*spans, logprobs=()):
    """A capture of one request, as far as these comparisons read it; a span is (start, count)."""
    steps = tuple(SimpleNamespace(spans=(Span("one", *span),)) for span in ((0, 3), *spans))
    return SimpleNamespace(
        stages={0: SimpleNamespace(steps=steps)},
        probes={"one": SentProbe(REQUEST, 0, tuple(logprobs))},
    )


@pytest.mark.parametrize(
    ("spans", "counted"),
    [
        (((3, 1), (4, 1), (5, 1), (6, 1)), None),
        (((3, 4), (7, 1)), Drafts(3, 3)),
        (((3, 4), (4, 4), (5, 1), (6, 1)), Drafts(6, 0)),
        (((3, 3), (5, 4)), Drafts(5, 2)),
    ],
)
def test_drafts_are_counted_by_where_the_next_step_begins(spans, counted):
    """Taken are those that the next step does not compute again; beyond the end none is taken."""
    assert drafts(side(*spans)).get("one") == counted
    figures = {"drafted": counted.drafted, "accepted": counted.accepted} if counted else {}
    assert draft_figures(side(*spans)) == figures


def test_equal_engines_have_no_finding():
    """The same drafts and the same log-probabilities: nothing to report."""
    assert compare_returned(side((3, 4)), side((3, 4))) == []


def test_another_log_probability_is_found():
    """A digest of a single position tells, and the request is named."""
    (finding,) = compare_returned(side(logprobs=("a", "b")), side(logprobs=("a", "c")))
    assert finding.code == "LOG008"
    assert finding.evidence["requests"] == ["one"]


def test_other_drafts_are_found():
    """A drafter that is given other tokens at PP=N drafts others, though all logits are equal."""
    before, after = side((3, 4), (7, 1)), side((3, 4), (5, 1), (6, 1))
    (finding,) = compare_returned(before, after)
    assert finding.code == "LOG009"
    assert "1 of 3 taken, 3 of 3 at PP=1" in finding.message


def drafting(build, pp):
    """Build a capture whose engine drafts tokens: one step holds two rows behind the prompt."""
    built = build(pp=pp, spans=DRAFTED)
    built.prompts["one"] = 3
    return built.asked(engine_args=((DRAFTS, '{"method": "ngram"}'),)).save()


def test_drafting_that_flips_tokens_at_pp1_is_a_warning(build):
    """It is no fault of pipelines: PP=N has the bits of PP=1. Without flips figures say how far."""
    undrafted = build(pp=1, spans=DRAFTED)
    pair = Comparison(drafting(build, 1), drafting(build, 2), beside=undrafted.save())
    verdict = judge("logits", pair)
    assert (verdict.outcome, verdict.findings) == (Outcome.PASS, ())
    assert verdict.figures["undrafted"]["equal_rows"] == verdict.figures["rows"]
    undrafted.logits["one", 1] = [9.0, 1.0, 2.0, -1.0, 0.5]
    verdict = judge("logits", replace(pair, beside=undrafted.save()))
    assert verdict.outcome is Outcome.PASS
    assert [finding.code for finding in verdict.findings] == ["LOG010"]
    assert "one@1 by the widest margin" in verdict.findings[0].message
