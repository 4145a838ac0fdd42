"""The verdict of one check of one point, from its two captures."""

from ..capture.record import Capture
from .engine import engine_failure, not_applicable
from .finding import Outcome, Verdict, blocked_by
from .registry import Check, Comparison, Need, find_check


def judge(name: str, pair: Comparison) -> Verdict:
    """Judge the check `name` of a point from its captures.

    A check whose needs are not met is not applicable, or blocked by the engine that failed. One
    that does not need whole engines speaks if its capture shows enough all the same.

    Raises:
        KeyError: if there is no such check.
    """
    check = find_check(name)
    if check is None:
        raise KeyError(name)
    unmet = _unmet_need(check, pair.baseline, pair.candidate)
    if unmet is not None:
        return unmet
    verdict = check.judge(pair)
    if check.needs and verdict.outcome is Outcome.BLOCKED:
        failure = engine_failure(pair.candidate)
        if failure is not None:
            return blocked_by(failure)
    return verdict


def _unmet_need(check: Check, baseline: Capture, candidate: Capture) -> Verdict | None:
    """Verdict on a check that cannot be judged, None if it can; needs are asked in this order."""
    if not check.needs:
        return None
    aside = not_applicable(baseline, candidate)
    if aside is not None:
        return Verdict(aside.outcome, aside.summary)
    if Need.TOKENIZER in check.needs and candidate.cell.gsm8k is None:
        return Verdict(Outcome.NOT_APPLICABLE, "a shape has no tokenizer and can answer nothing")
    for need, capture in ((Need.CANDIDATE, candidate), (Need.BASELINE, baseline)):
        if need in check.needs and (failure := engine_failure(capture)) is not None:
            return blocked_by(failure)
    return None
