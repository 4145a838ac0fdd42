"""GSM8K answers, paired per question: exact one-sided McNemar and a non-inferiority bound.

The same questions are asked of the same engine at two PP sizes, so that only the questions whose
result changed carry information (docs/evidence.md).
"""

from typing import Any

from ...capture.record import Capture
from ...plan.options import DEFAULT_MARGIN
from ..finding import Finding, Outcome, Severity, Verdict, judged
from .paired import fall_bound, mcnemar
from .power import ALPHA

# Fixed beforehand, as lm-eval's gsm8k reports it first; the other is shown beside it.
PRIMARY_FILTER, SECOND_FILTER = "strict-match", "flexible-extract"
_HASHES = ("doc_hash", "prompt_hash", "target_hash")
# Answers that are kept where outputs differ and no score does.
_EXAMPLES = 3

Line = dict[str, Any]
Pairs = list[tuple[Line, Line]]


def compare_accuracy(
    baseline: Capture, candidate: Capture, margin: float = DEFAULT_MARGIN
) -> Verdict:
    """Judge the answers of `candidate` (PP=N) against those of `baseline` (PP=1).

    PASS: every output is identical, or the one-sided 95 % bound of the fall is below `margin`.
    FAIL: the sets do not pair, or correct answers turned wrong more often than chance allows.
    INCONCLUSIVE: outputs differ and the questions are too few to decide.
    """
    left, right = baseline.answers, candidate.answers
    if not left or not right:
        return Verdict(Outcome.BLOCKED, "lm-eval left no answers")
    unpaired = _unpaired(left, right)
    if unpaired:
        return judged([unpaired], "")
    pairs = list(zip(left, right, strict=True))
    count = len(pairs)
    lost, won = _flipped(pairs, PRIMARY_FILTER)
    lost_too, won_too = _flipped(pairs, SECOND_FILTER)
    before, after = (_share(side, PRIMARY_FILTER) for side in (left, right))
    loosely = [_share(side, SECOND_FILTER) for side in (left, right)]
    changed = [(a, b) for a, b in pairs if (a["output"], a["scores"]) != (b["output"], b["scores"])]
    figures: dict[str, Any] = {
        "questions": count,
        "baseline": before,
        "candidate": after,
        "lost": len(lost),
        "won": len(won),
        "outputs_changed": len(changed),
        "margin": margin,
        "filter": PRIMARY_FILTER,
        "flexible_baseline": loosely[0],
        "flexible_candidate": loosely[1],
        "flexible_lost": len(lost_too),
        "flexible_won": len(won_too),
    }
    scores = f"{before:.3f} at PP=1, {after:.3f} here"
    if not changed:
        return Verdict(Outcome.PASS, f"all {count} outputs identical ({scores})", (), figures)
    p_value, bound = mcnemar(len(lost), len(won)), fall_bound(len(lost), len(won), count)
    figures |= {
        "p_value": p_value,
        "fall_bound": bound,
        "fall_low": -fall_bound(len(won), len(lost), count),
    }
    evidence = {**figures, "examples": _examples(lost, won, changed)}
    beside = f"{SECOND_FILTER} {loosely[0]:.3f}, {loosely[1]:.3f}"
    if p_value < ALPHA:
        finding = Finding(
            "ACC001",
            Severity.ERROR,
            f"accuracy falls: {scores}; {len(lost)} of {count} questions lost, {len(won)} won "
            f"(one-sided exact McNemar p = {p_value:.2g}; {beside})",
            "see the contract and logits findings of this cell",
            evidence=evidence,
        )
        return judged([finding], "", **figures)
    if bound < margin:
        summary = (
            f"{len(changed)} of {count} outputs differ, fall below {bound:.4f} ({scores}; {beside})"
        )
        finding = Finding(
            "ACC004",
            Severity.INFO,
            f"{len(lost)} of {count} questions lost, {len(won)} won: less than the margin of "
            f"{margin:g} with 95 % confidence",
            "nothing to do; the logits verdict says whether the computation is the same",
            evidence=evidence,
        )
        return judged([finding], summary, **figures)
    cure = (
        "ask more questions (--pp-gsm8k-limit) and look at the logits verdict"
        if before
        else "no question is solved at PP=1, so that no fall can show: look at the logits verdict, "
        "or ask what the model can answer (--pp-gsm8k)"
    )
    finding = Finding(
        "ACC002",
        Severity.WARNING,
        f"{len(changed)} of {count} outputs differ and {count} questions cannot exclude a fall of "
        f"{margin:g} (bound {bound:.4f}; {scores}; {beside})",
        cure,
        evidence=evidence,
    )
    return Verdict(Outcome.INCONCLUSIVE, finding.message, (finding,), figures)


def _right(line: Line, filter_name: str) -> bool:
    return bool(line["scores"][filter_name] == 1.0)


def _share(side: list[Line], filter_name: str) -> float:
    return sum(_right(line, filter_name) for line in side) / len(side)


def _flipped(pairs: Pairs, filter_name: str) -> tuple[Pairs, Pairs]:
    """Return the questions lost and the questions won, as one filter reads the answers."""
    lost = [(a, b) for a, b in pairs if _right(a, filter_name) and not _right(b, filter_name)]
    won = [(a, b) for a, b in pairs if not _right(a, filter_name) and _right(b, filter_name)]
    return lost, won


def _unpaired(left: list[Line], right: list[Line]) -> Finding | None:
    for position in range(max(len(left), len(right))):
        a = left[position] if position < len(left) else {}
        b = right[position] if position < len(right) else {}
        for name in _HASHES:
            if a.get(name) is None or a.get(name) != b.get(name):
                return Finding(
                    "ACC003",
                    Severity.ERROR,
                    f"question {position} does not pair: {name} differs",
                    "both cells must ask the same questions with the same prompt",
                    evidence={"baseline": a.get(name), "candidate": b.get(name)},
                )
    return None


def _examples(lost: Pairs, won: Pairs, changed: Pairs) -> list[Line]:
    """Return every question that flipped, or some that changed if none did."""
    named = [("lost", pair) for pair in lost] + [("won", pair) for pair in won]
    return [
        {
            "question": before["question"],
            "target": before["target"],
            "baseline": before["output"],
            "candidate": after["output"],
            "change": change,
        }
        for change, (before, after) in named or [("text", pair) for pair in changed[:_EXAMPLES]]
    ]
