"""Whether equal logits could have differed: an equal result proves something only then."""

from collections.abc import Container, Iterator
from dataclasses import replace

from ...capture.record import Capture
from ...engine.names import key_name
from ...engine.settings import DRAFTS
from ..contract.boundary_cost import boundary_costs
from ..finding import Finding, Outcome, Severity, Verdict
from ..registry import Comparison
from .returned import drafts

# How many blind spots a message names; the evidence holds all.
_NAMED = 3


def blind_spots(pair: Comparison, excuses: Container[str], limit: float = 0.0) -> tuple[str, ...]:
    """Perturbations that did not move the logits by more than `limit`, though they should.

    At PP=1 every kind of weight must have moved them, at PP=N every boundary key, but for
    `excuses`, those that cannot (`cannot_matter`). An engine that tried nothing has shown nothing;
    nor has one about a cache that gave no prompt anything, or about drafts that never came.
    """
    seen = _effects(pair)
    spots: list[str] = []
    for capture in (pair.baseline, pair.candidate):
        asked = capture.sensitivity.asked
        if not asked:
            spots.append(f"anything at PP={capture.cell.pp}: nothing was tried")
        spots += [name for name in asked if seen.get(name, 0.0) <= limit and name not in excuses]
        spots += _unused(capture)
    return tuple(spots)


def _unused(capture: Capture) -> Iterator[str]:
    """Yield what was asked for and came into no probe of an engine."""
    at = f"at PP={capture.cell.pp}"
    cached = any(sent.cached for sent in capture.probes.values())
    if capture.cell.asks("enable_prefix_caching") and not cached:
        yield f"blocks of the prefix cache {at}: it held the beginning of no prompt"
    if capture.cell.asks(DRAFTS) and not drafts(capture):
        yield f"drafts {at}: none came"


def _effects(pair: Comparison) -> dict[str, float]:
    """The largest effect of each perturbation.

    Compiled code may keep copies of weights, which nothing alters: there eager code answers.
    """
    largest: dict[str, float] = {}
    for capture in (pair.beside, pair.baseline, pair.candidate):
        for name, effect in capture.sensitivity.effects.items() if capture else ():
            largest[name] = max(effect, largest.get(name, 0.0))
    return largest


def cannot_matter(baseline: Capture, candidate: Capture) -> dict[str, str]:
    """Perturbations that move no logits of any model of this class, each with the reason.

    A key that the stages behind a boundary read and throw away is one: whatever it holds, they
    compute the same, and what they compute instead is seen in the logits.
    """
    excuses = {**baseline.sensitivity.excuses, **candidate.sensitivity.excuses}
    stages = candidate.stages
    for cost in boundary_costs(stages) if all(rank.steps for rank in stages.values()) else ():
        if cost.is_thrown_away:
            excuses[key_name(cost.stage, cost.key)] = (
                "no stage behind the boundary computes with it"
            )
    return excuses


def trusted(verdict: Verdict, pair: Comparison) -> Verdict:
    """Turn a logits verdict that is PASS into INCONCLUSIVE if it could not have been another.

    Where noise is allowed a perturbation counts from the smallest fault that would have been seen.
    """
    if verdict.outcome is not Outcome.PASS:
        return verdict
    baseline, candidate = pair.baseline, pair.candidate
    excuses = cannot_matter(baseline, candidate)
    figures = {**verdict.figures, "sensitivity": _effects(pair), "cannot_matter": excuses}
    limit = verdict.figures.get("smallest_fault") or 0.0
    spots = blind_spots(pair, excuses, limit)
    if not spots:
        return replace(verdict, figures=figures)
    more = f" and {len(spots) - _NAMED} more" if len(spots) > _NAMED else ""
    finding = Finding(
        "LOG004",
        f"{verdict.summary}, but this model with {candidate.cell.weights} weights "
        f"could not have shown a difference in {', '.join(spots[:_NAMED])}{more}",
        "use real weights, or random ones for which every path matters (pp-harness model shrink)",
        Severity.WARNING,
        evidence={"blind_to": list(spots)},
    )
    return Verdict(Outcome.INCONCLUSIVE, finding.message, (*verdict.findings, finding), figures)
