"""The table at the end of a run: variant x model x PP, one column per check."""

from collections.abc import Sequence

from .schema import VerdictRecord

_CHECKS = ("engine", "contract", "logits", "accuracy")
_HEADER = ("variant", "model", "pp", *_CHECKS)


def verdict_table(verdicts: Sequence[VerdictRecord]) -> list[str]:
    """Return the table's lines; an expected verdict carries a star, what did not run a dash."""
    rows: dict[tuple[str, str, int], dict[str, str]] = {}
    for one in verdicts:
        cell = one.verdict + ("*" if one.expected and one.verdict != "pass" else "")
        rows.setdefault((one.variant, one.model, one.pp), {})[one.check] = cell
    lines = [
        (variant, model, str(pp), *(checks.get(check, "-") for check in _CHECKS))
        for (variant, model, pp), checks in rows.items()
    ]
    widths = [max(len(row[i]) for row in (_HEADER, *lines)) for i in range(len(_HEADER))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (_HEADER, *lines)
    ]
