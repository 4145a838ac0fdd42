"""Whether equal logits could have differed: an equal result proves something only then."""

from collections.abc import Container
from dataclasses import replace

from ...capture.record import Capture
from ...engine.perturbations import key_name
from ..contract.boundary_cost import boundary_costs
from ..finding import Finding, Outcome, Severity, Verdict

# How many blind spots a message names; the evidence holds all.
_NAMED = 3


def blind_spots(
    baseline: Capture, candidate: Capture, excuses: Container[str], limit: float = 0.0
) -> tuple[str, ...]:
    """Perturbations that did not move the logits by more than `limit`, though they should.

    At PP=1 every kind of weight must have moved them, at PP=N every boundary key, but for
    `excuses`, those that cannot (`cannot_matter`). An engine that tried nothing has shown nothing.
    """
    spots: list[str] = []
    for capture in (baseline, candidate):
        tried = capture.sensitivity
        if not tried.asked:
            spots.append(f"anything at PP={capture.cell.pp}: nothing was tried")
        spots += [
            name
            for name in tried.asked
            if tried.effects.get(name, 0.0) <= limit and name not in excuses
        ]
    return tuple(spots)


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


def trusted(verdict: Verdict, baseline: Capture, candidate: Capture) -> Verdict:
    """Turn a logits verdict that is PASS into INCONCLUSIVE if it could not have been another.

    Where noise is allowed a perturbation counts from the smallest fault that would have been seen.
    """
    if verdict.outcome is not Outcome.PASS:
        return verdict
    excuses = cannot_matter(baseline, candidate)
    figures = {
        **verdict.figures,
        "sensitivity": {**baseline.sensitivity.effects, **candidate.sensitivity.effects},
        "cannot_matter": excuses,
    }
    limit = verdict.figures.get("smallest_fault") or 0.0
    spots = blind_spots(baseline, candidate, excuses, limit)
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
