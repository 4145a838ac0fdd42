"""The accuracy check: GSM8K answers, paired per question, by McNemar's test and an exact bound.

The same questions are asked of the same engine at two PP sizes, so that only the questions whose
result changed carry information (docs/evidence.md).
"""

from itertools import zip_longest
from typing import Any

from ...capture.record import Capture
from ...plan.options import DEFAULT_MARGIN
from ..finding import Finding, Outcome, Severity, Verdict, judged, verdict_of
from ..registry import Check, Figure, Need, register
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
    before, after = baseline.answers, candidate.answers
    if not before or not after:
        return Verdict(Outcome.BLOCKED, "lm-eval left no answers")
    unpaired = _unpaired(before, after)
    if unpaired:
        return verdict_of(Outcome.FAIL, unpaired)
    pairs = list(zip(before, after, strict=True))
    count = len(pairs)
    lost, won = _flipped(pairs, PRIMARY_FILTER)
    flexible_lost, flexible_won = _flipped(pairs, SECOND_FILTER)
    changed = [(a, b) for a, b in pairs if (a["output"], a["scores"]) != (b["output"], b["scores"])]
    figures: dict[str, Any] = {
        "questions": count,
        "baseline": _share(before, PRIMARY_FILTER),
        "candidate": _share(after, PRIMARY_FILTER),
        "lost": len(lost),
        "won": len(won),
        "outputs_changed": len(changed),
        "margin": margin,
        "filter": PRIMARY_FILTER,
        "flexible_baseline": _share(before, SECOND_FILTER),
        "flexible_candidate": _share(after, SECOND_FILTER),
        "flexible_lost": len(flexible_lost),
        "flexible_won": len(flexible_won),
    }
    scores = f"{figures['baseline']:.3f} at PP=1, {figures['candidate']:.3f} here"
    if not changed:
        return judged([], f"all {count} outputs identical ({scores})", **figures)
    p_value, bound = mcnemar(len(lost), len(won)), fall_bound(len(lost), len(won), count)
    figures |= {
        "p_value": p_value,
        "fall_bound": bound,
        "fall_low": -fall_bound(len(won), len(lost), count),
    }
    evidence = {**figures, "examples": _examples(lost, won, changed)}
    differ = f"{len(changed)} of {count} outputs differ"
    flips = f"{len(lost)} of {count} questions lost, {len(won)} won"
    flexible = (
        f"{SECOND_FILTER} {figures['flexible_baseline']:.3f}, {figures['flexible_candidate']:.3f}"
    )
    if p_value < ALPHA:
        finding = Finding(
            "ACC001",
            f"accuracy falls: {scores}; {flips} (one-sided exact McNemar p = {p_value:.2g}; "
            f"{flexible})",
            "see the contract and logits findings of this cell",
            evidence=evidence,
        )
        return verdict_of(Outcome.FAIL, finding, **figures)
    if bound < margin:
        finding = Finding(
            "ACC004",
            f"{flips}: less than the margin of {margin:g} with 95 % confidence",
            "nothing to do; the logits verdict says whether the computation is the same",
            Severity.INFO,
            evidence=evidence,
        )
        summary = f"{differ}, fall below {bound:.4f} ({scores}; {flexible})"
        return judged([finding], summary, **figures)
    if figures["baseline"]:
        fix = "ask more questions (--pp-gsm8k-limit) and look at the logits verdict"
    else:
        fix = (
            "no question is solved at PP=1, so that no fall can show: look at the logits verdict, "
            "or ask what the model can answer (--pp-gsm8k)"
        )
    finding = Finding(
        "ACC002",
        f"{differ} and {count} questions cannot exclude a fall of {margin:g} (bound {bound:.4f}; "
        f"{scores}; {flexible})",
        fix,
        Severity.WARNING,
        evidence=evidence,
    )
    return verdict_of(Outcome.INCONCLUSIVE, finding, **figures)


register(
    Check(
        name="accuracy",
        order=40,
        needs=Need.TOKENIZER | Need.CANDIDATE | Need.BASELINE,
        judge=lambda pair: compare_accuracy(pair.baseline, pair.candidate, pair.margin),
        figures=(
            Figure("questions", "questions"),
            Figure("baseline", "accuracy at PP=1"),
            Figure("candidate", "accuracy here"),
            Figure("lost", "questions lost"),
            Figure("won", "questions won"),
            Figure("outputs_changed", "answers that differ"),
            Figure("margin", "accepted fall"),
            Figure("filter", "answers read by"),
            Figure("flexible_baseline", f"accuracy at PP=1, read by {SECOND_FILTER}"),
            Figure("flexible_candidate", f"accuracy here, read by {SECOND_FILTER}"),
            Figure("flexible_lost", f"questions lost, read by {SECOND_FILTER}"),
            Figure("flexible_won", f"questions won, read by {SECOND_FILTER}"),
            Figure("p_value", "p of so many losses by chance", "exact McNemar"),
            Figure("fall_bound", "upper 95 % bound of the fall"),
            Figure("fall_low", "lower 95 % bound of the fall"),
        ),
        trend="candidate",
        output="answers",
    )
)


def _right(line: Line, filter_name: str) -> bool:
    return bool(line["scores"][filter_name] == 1.0)


def _share(side: list[Line], filter_name: str) -> float:
    return sum(_right(line, filter_name) for line in side) / len(side)


def _flipped(pairs: Pairs, filter_name: str) -> tuple[Pairs, Pairs]:
    """Questions lost and questions won, as one filter reads the answers."""
    lost = [(a, b) for a, b in pairs if _right(a, filter_name) and not _right(b, filter_name)]
    won = [(a, b) for a, b in pairs if not _right(a, filter_name) and _right(b, filter_name)]
    return lost, won


def _unpaired(before: list[Line], after: list[Line]) -> Finding | None:
    """ACC003 for the first question that was not asked of both sides."""
    none: Line = {}
    for position, (a, b) in enumerate(zip_longest(before, after, fillvalue=none)):
        for name in _HASHES:
            if a.get(name) is None or a.get(name) != b.get(name):
                return Finding(
                    "ACC003",
                    f"question {position} does not pair: {name} differs",
                    "both cells must ask the same questions with the same prompt",
                    evidence={"baseline": a.get(name), "candidate": b.get(name)},
                )
    return None


def _examples(lost: Pairs, won: Pairs, changed: Pairs) -> list[Line]:
    """Both answers to every question that flipped, or to some whose text changed if none did."""
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
