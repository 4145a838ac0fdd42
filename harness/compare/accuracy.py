"""GSM8K answers, paired per question: exact one-sided McNemar and a non-inferiority bound.

The same questions are asked of the same engine at two PP sizes, so that only the questions whose
result changed carry information (McNemar, Psychometrika 1947; exact binomial form).
"""

from typing import Any

from ..capture.record import Capture
from .finding import Finding, Outcome, Severity, Verdict, judged

# Fixed beforehand, as lm-eval's gsm8k reports it first.
PRIMARY_FILTER = "strict-match"
# The largest fall of accuracy that is accepted, as a share of the questions.
DEFAULT_MARGIN = 0.01
_ALPHA = 0.05
_HASHES = ("doc_hash", "prompt_hash", "target_hash")
_EXAMPLES = 3


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
    lost = [(a, b) for a, b in pairs if _right(a) and not _right(b)]
    won = [(a, b) for a, b in pairs if not _right(a) and _right(b)]
    changed = [(a, b) for a, b in pairs if (a["output"], _right(a)) != (b["output"], _right(b))]
    count = len(pairs)
    before, after = (sum(map(_right, side)) / count for side in (left, right))
    p_value, bound = mcnemar(len(lost), len(won)), fall_bound(len(lost), len(won), count)
    figures: dict[str, Any] = {
        "questions": count,
        "baseline": before,
        "candidate": after,
        "lost": len(lost),
        "won": len(won),
        "outputs_changed": len(changed),
        "p_value": p_value,
        "fall_bound": bound,
        "margin": margin,
        "filter": PRIMARY_FILTER,
    }
    scores = f"{before:.3f} at PP=1, {after:.3f} here"
    if not changed:
        return Verdict(Outcome.PASS, f"all {count} outputs identical ({scores})", (), figures)
    examples = [_flip(a, b) for a, b in (lost or changed)[:_EXAMPLES]]
    if p_value < _ALPHA:
        finding = Finding(
            "ACC001",
            Severity.ERROR,
            f"accuracy falls: {scores}; {len(lost)} of {count} questions lost, {len(won)} won "
            f"(one-sided exact McNemar p = {p_value:.2g})",
            "see the contract and logits findings of this cell",
            evidence={**figures, "examples": examples},
        )
        return judged([finding], "", **figures)
    if bound < margin:
        summary = f"{len(changed)} of {count} outputs differ, fall below {bound:.3f} ({scores})"
        return Verdict(Outcome.PASS, summary, (), figures)
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
        f"{margin:.3f} (bound {bound:.3f}; {scores})",
        cure,
        evidence={**figures, "examples": examples},
    )
    return Verdict(Outcome.INCONCLUSIVE, finding.message, (finding,), figures)


def mcnemar(lost: int, won: int) -> float:
    """Return the exact one-sided p-value of at least `lost` losses among the changed questions."""
    from scipy.stats import binomtest

    if lost + won == 0:
        return 1.0
    return float(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue)


def fall_bound(lost: int, won: int, count: int) -> float:
    """Return an upper 95 % bound of the fall in accuracy, as a share of `count` questions.

    Conservative and exact in each part: the Clopper-Pearson upper bound of the share lost minus
    the lower bound of the share won, each at half the error (Bonferroni).
    """
    from scipy.stats import binomtest

    level = 1 - _ALPHA  # two-sided at this level is one-sided at half the error
    high = binomtest(lost, count).proportion_ci(level, method="exact").high
    low = binomtest(won, count).proportion_ci(level, method="exact").low
    return float(high - low)


def _right(line: dict[str, Any]) -> bool:
    return bool(line["scores"][PRIMARY_FILTER] == 1.0)


def _unpaired(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> Finding | None:
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


def _flip(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {
        "question": before["question"],
        "target": before["target"],
        "baseline": before["output"],
        "candidate": after["output"],
    }
