"""Whether equal logits could have differed: an equal result proves something only then."""

from ...capture.record import Capture
from ..finding import Finding, Outcome, Severity, Verdict

# How many blind spots a message names; the evidence holds all.
_NAMED = 3


def blind_spots(baseline: Capture, candidate: Capture) -> tuple[str, ...]:
    """Return what the logits of this model did not answer to, though they should.

    At PP=1 every kind of weight must have moved them, but for those that cannot (`excuses`), at
    PP=N every boundary key. An engine that tried nothing has shown nothing.
    """
    spots: list[str] = []
    for capture in (baseline, candidate):
        seen = capture.sensitivity
        if not seen.asked:
            spots.append(f"anything at PP={capture.cell.pp}: nothing was tried")
        spots += [
            name for name in seen.asked if name not in seen.effects and name not in seen.excuses
        ]
    return tuple(spots)


def trusted(verdict: Verdict, baseline: Capture, candidate: Capture) -> Verdict:
    """Return a logits verdict as it is, unless it is PASS and unequal logits were not possible."""
    if verdict.outcome is not Outcome.PASS:
        return verdict
    left, right = baseline.sensitivity, candidate.sensitivity
    figures = {
        **verdict.figures,
        "sensitivity": {**left.effects, **right.effects},
        "cannot_matter": {**left.excuses, **right.excuses},
    }
    spots = blind_spots(baseline, candidate)
    if not spots:
        return Verdict(verdict.outcome, verdict.summary, verdict.findings, figures)
    more = f" and {len(spots) - _NAMED} more" if len(spots) > _NAMED else ""
    finding = Finding(
        "LOG004",
        Severity.WARNING,
        f"logits are equal, but this model with {candidate.cell.weights} weights "
        f"could not have shown a difference in "
        f"{', '.join(spots[:_NAMED])}{more}",
        "use real weights, or random ones for which every path matters (pp-harness model shrink)",
        evidence={"blind_to": list(spots)},
    )
    return Verdict(Outcome.INCONCLUSIVE, finding.message, (*verdict.findings, finding), figures)
