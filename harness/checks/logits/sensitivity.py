"""Whether equal logits could have differed: an equal result proves something only then."""

from dataclasses import replace

from ...capture.record import Capture
from ..finding import Finding, Outcome, Severity, Verdict

# How many blind spots a message names; the evidence holds all.
_NAMED = 3


def blind_spots(baseline: Capture, candidate: Capture, limit: float = 0.0) -> tuple[str, ...]:
    """Perturbations that did not move the logits by more than `limit`, though they should.

    At PP=1 every kind of weight must have moved them, but for those that cannot (`excuses`), at
    PP=N every boundary key. An engine that tried nothing has shown nothing.
    """
    spots: list[str] = []
    for capture in (baseline, candidate):
        tried = capture.sensitivity
        if not tried.asked:
            spots.append(f"anything at PP={capture.cell.pp}: nothing was tried")
        spots += [
            name
            for name in tried.asked
            if tried.effects.get(name, 0.0) <= limit and name not in tried.excuses
        ]
    return tuple(spots)


def trusted(verdict: Verdict, baseline: Capture, candidate: Capture) -> Verdict:
    """Turn a logits verdict that is PASS into INCONCLUSIVE if it could not have been another.

    Where noise is allowed a perturbation counts from the smallest fault that would have been seen.
    """
    if verdict.outcome is not Outcome.PASS:
        return verdict
    before, after = baseline.sensitivity, candidate.sensitivity
    figures = {
        **verdict.figures,
        "sensitivity": {**before.effects, **after.effects},
        "cannot_matter": {**before.excuses, **after.excuses},
    }
    limit = verdict.figures.get("smallest_fault") or 0.0
    spots = blind_spots(baseline, candidate, limit)
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
