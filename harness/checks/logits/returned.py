"""What the engine returns beside tokens: log-probabilities of prompts, and drafts that it took."""

from dataclasses import dataclass

from ...capture.record import Capture
from ..finding import Finding, Severity
from .distance import LogitDistance
from .rows import row_name

# How many requests a finding's evidence names.
_EXAMPLES = 5


@dataclass(frozen=True)
class Drafts:
    """Tokens that were drafted in the decode steps of a request, and of them those taken."""

    drafted: int = 0
    accepted: int = 0

    def __add__(self, other: "Drafts") -> "Drafts":
        return Drafts(self.drafted + other.drafted, self.accepted + other.accepted)


def drafts(capture: Capture) -> dict[str, Drafts]:
    """Count the drafts of each probe that had any, by the rows of its decode steps.

    A step holds the last token and the drafts for those after it; the next step begins behind what
    was taken of them.
    """
    found: dict[str, Drafts] = {}
    starts: dict[str, list[tuple[int, int]]] = {}
    for step in capture.stages[0].steps:
        for span in step.spans:
            starts.setdefault(span.request, []).append((span.start, span.count))
    for name, sent in capture.probes.items():
        spans = [each for each in starts.get(name, ()) if each[0] >= len(sent.request.prompt)]
        ends = [*(start for start, _ in spans[1:]), len(sent.request.positions)]
        for (start, count), end in zip(spans, ends, strict=False):
            if count > 1:
                taken = Drafts(count - 1, min(end - start, count) - 1)
                found[name] = found.get(name, Drafts()) + taken
    return found


def compare_returned(baseline: Capture, candidate: Capture) -> list[Finding]:
    """LOG008 for log-probabilities and LOG009 for drafts that are not those of PP=1.

    To be asked where both ran the same batches; that both were sent the same probes is known.
    """
    findings = []
    names = [
        name
        for name, sent in candidate.probes.items()
        if sent.prompt_logprobs != baseline.probes[name].prompt_logprobs
    ]
    if names:
        message = (
            f"log-probabilities of {len(names)} of {len(candidate.probes)} prompts are not those "
            f"of PP=1, first {names[0]}"
        )
        fix = "if logits are equal, look at how the last stage gathers what it returns"
        evidence = {"requests": names[:_EXAMPLES]}
        findings.append(Finding("LOG008", message, fix, evidence=evidence))
    before, after = drafts(baseline), drafts(candidate)
    names = [name for name in candidate.probes if before.get(name) != after.get(name)]
    if names:
        one, other = (side.get(names[0], Drafts()) for side in (before, after))
        message = (
            f"drafts of {len(names)} requests differ, first {names[0]}: {other.accepted} of "
            f"{other.drafted} taken, {one.accepted} of {one.drafted} at PP=1"
        )
        fix = "look at the tokens that the drafter is given at PP=N"
        evidence = {"requests": names[:_EXAMPLES]}
        findings.append(Finding("LOG009", message, fix, evidence=evidence))
    return findings


def compare_undrafted(undrafted: LogitDistance) -> list[Finding]:
    """LOG010 where PP=1 has other highest tokens than PP=1 without drafts.

    A warning: the engines have other batches, so that a near tie may flip by rounding.
    """
    if not undrafted.flips:
        return []
    widest = max(undrafted.flips, key=lambda flip: flip.margin)
    message = (
        f"PP=1 itself has another highest token than without drafts in {len(undrafted.flips)} of "
        f"{undrafted.rows} rows, {row_name(widest.row)} by the widest margin, {widest.margin:.3g}"
    )
    fix = "if margins are wide, drafting is wrong without pipeline parallelism: look at PP=1 first"
    return [Finding("LOG010", message, fix, Severity.WARNING, evidence=undrafted.figures)]


def draft_figures(capture: Capture) -> dict[str, int]:
    """Count all drafts of a capture, as figures of a verdict; none where nothing was drafted."""
    total = sum(drafts(capture).values(), Drafts())
    return {"drafted": total.drafted, "accepted": total.accepted} if total.drafted else {}
