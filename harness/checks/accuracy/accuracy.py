"""The accuracy check: GSM8K answers, paired per question, by McNemar's test and an exact bound.

The same questions are asked of the same engine at two PP sizes, so that only the questions whose
result changed carry information (docs/evidence.md).
"""

from dataclasses import replace
from itertools import zip_longest
from typing import Any

from ...capture.record import Capture
from ...plan.options import DEFAULT_MARGIN
from ..bits import bits_decide
from ..finding import Finding, Outcome, Severity, Verdict, judged, verdict_of
from ..registry import Check, Figure, Need, register
from .paired import fall_bound, mcnemar
from .power import ALPHA, FALSE_ALARM, fewest_questions
from .same_batches import differing_tokens

# In lm-eval's order. The one by which PP=1 solves more decides, the first if both are alike.
FILTERS = ("strict-match", "flexible-extract")
# The share of questions that PP=1 must solve, else there is too little to lose.
_LEAST_SOLVED = 0.1
_HASHES = ("doc_hash", "prompt_hash", "target_hash")
# Answers that are kept where outputs differ and no score does.
_EXAMPLES = 3

Line = dict[str, Any]
Pairs = list[tuple[Line, Line]]


def compare_accuracy(
    baseline: Capture, candidate: Capture, margin: float = DEFAULT_MARGIN
) -> Verdict:
    """Judge the answers of `candidate` (PP=N) against those of `baseline` (PP=1).

    FAIL: the sets do not pair, more answers turned wrong, or right, than chance allows, or a token
    differs where the bits of PP=1 are asked for.
    PASS: every output is identical, or the one-sided 95 % bound of the fall is below `margin`.
    INCONCLUSIVE: the questions are too few to decide, or PP=1 solves too few of them. Where the
    batches differ, identical outputs are a sample too and need as many questions as the margin.
    """
    before, after = baseline.answers, candidate.answers
    if not before or not after:
        return Verdict(Outcome.BLOCKED, "lm-eval left no answers")
    unpaired = _unpaired(before, after)
    if unpaired:
        return verdict_of(Outcome.FAIL, unpaired)
    pairs = list(zip(before, after, strict=True))
    count = len(pairs)
    read_by = max(FILTERS, key=lambda name: _share(before, name))
    lost, won = _flipped(pairs, read_by)
    flexible_lost, flexible_won = _flipped(pairs, FILTERS[1])
    changed = [(a, b) for a, b in pairs if (a["output"], a["scores"]) != (b["output"], b["scores"])]
    figures: dict[str, Any] = {
        "questions": count,
        "baseline": _share(before, read_by),
        "candidate": _share(after, read_by),
        "lost": len(lost),
        "won": len(won),
        "outputs_changed": len(changed),
        "margin": margin,
        "filter": read_by,
        "flexible_baseline": _share(before, FILTERS[1]),
        "flexible_candidate": _share(after, FILTERS[1]),
        "flexible_lost": len(flexible_lost),
        "flexible_won": len(flexible_won),
    }
    again = _asked_again(before, baseline.second_answers, read_by)
    figures |= again
    bits = bits_decide(baseline) and not again.get("repeat_changed")
    scores = f"{read_by} {figures['baseline']:.3f} at PP=1, {figures['candidate']:.3f} here"
    parting = differing_tokens(pairs) if bits else None
    if not changed and parting is None:
        needed = fewest_questions(margin)
        same = f"all {count} outputs identical{_beside(again)} ({scores})"
        if count >= needed or bits:
            return judged([], same, **figures)
        finding = Finding(
            "ACC002",
            f"{same}, and in other batches {needed} are needed to exclude a fall of {margin:g}",
            "ask more questions (--pp-gsm8k-limit), or run --pp-profile parity",
            Severity.WARNING,
        )
        return verdict_of(Outcome.INCONCLUSIVE, finding, **figures)
    p_fall, p_rise = mcnemar(len(lost), len(won)), mcnemar(len(won), len(lost))
    bound = fall_bound(len(lost), len(won), count)
    figures |= {
        "p_value": p_fall,
        "p_rise": p_rise,
        "fall_bound": bound,
        "fall_low": -fall_bound(len(won), len(lost), count),
    }
    evidence = {**figures, "examples": _examples(lost, won, changed)}
    differ = f"{len(changed)} of {count} outputs differ{_beside(again)}"
    flips = f"{len(lost)} of {count} questions lost, {len(won)} won"
    for code, does, p_value in (("ACC001", "falls", p_fall), ("ACC005", "rises", p_rise)):
        if p_value < (ALPHA if bits else FALSE_ALARM / 2):
            finding = Finding(
                code,
                f"accuracy {does}: {scores}; {flips} (exact McNemar p = {p_value:.2g})"
                + (f"; {parting.message}" if parting else ""),
                "see the contract and logits findings of this cell",
                evidence=evidence,
            )
            return verdict_of(Outcome.FAIL, finding, **figures)
    if parting:
        parting = replace(parting, evidence={**parting.evidence, **evidence})
        return verdict_of(Outcome.FAIL, parting, **figures)
    is_informative = figures["baseline"] >= _LEAST_SOLVED
    if is_informative and bound < margin:
        finding = Finding(
            "ACC004",
            f"{flips}: less than the margin of {margin:g} with 95 % confidence",
            "nothing to do; the logits verdict says whether the computation is the same",
            Severity.INFO,
            evidence=evidence,
        )
        return judged([finding], f"{differ}, fall below {bound:.4f} ({scores})", **figures)
    if is_informative:
        why = f"{count} questions cannot exclude a fall of {margin:g} (bound {bound:.4f}; {scores})"
        fix = "ask more questions (--pp-gsm8k-limit) and look at the logits verdict"
    else:
        why = f"PP=1 solves too few for a fall to show ({scores}; {_LEAST_SOLVED:.0%} are needed)"
        fix = "look at the logits verdict, or ask what the model can answer (--pp-gsm8k)"
    finding = Finding("ACC002", f"{differ} and {why}", fix, Severity.WARNING, evidence=evidence)
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
            Figure("repeat_changed", "answers that differ at PP=1, asked again in other batches"),
            Figure("repeat_lost", "questions that PP=1 lost when asked again"),
            Figure("repeat_won", "questions that PP=1 won when asked again"),
            Figure("margin", "accepted fall"),
            Figure("filter", "answers read by"),
            Figure("flexible_baseline", f"accuracy at PP=1, read by {FILTERS[1]}"),
            Figure("flexible_candidate", f"accuracy here, read by {FILTERS[1]}"),
            Figure("flexible_lost", f"questions lost, read by {FILTERS[1]}"),
            Figure("flexible_won", f"questions won, read by {FILTERS[1]}"),
            Figure("p_value", "p of so many losses by chance", "exact McNemar"),
            Figure("p_rise", "p of so many wins by chance", "exact McNemar"),
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
    lost = [(a, b) for a, b in pairs if _right(a, filter_name) and not _right(b, filter_name)]
    won = [(a, b) for a, b in pairs if not _right(a, filter_name) and _right(b, filter_name)]
    return lost, won


def _asked_again(before: list[Line], again: list[Line], filter_name: str) -> dict[str, int]:
    """Count what changed when PP=1 was asked again in other batches; empty where it was not."""
    if len(again) != len(before):
        return {}
    pairs = list(zip(before, again, strict=True))
    lost, won = _flipped(pairs, filter_name)
    return {
        "repeat_changed": sum(a["output"] != b["output"] for a, b in pairs),
        "repeat_lost": len(lost),
        "repeat_won": len(won),
    }


def _beside(again: dict[str, int]) -> str:
    if not again:
        return ""
    return (
        f" ({again['repeat_changed']} differ at PP=1 asked again in other batches, "
        f"{again['repeat_lost']} lost, {again['repeat_won']} won)"
    )


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
