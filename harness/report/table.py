"""The table at the end of a run: variant x model x PP, one column per check."""

from collections.abc import Sequence

from .schema import VerdictRecord
from .text import aligned

_CHECKS = ("engine", "contract", "logits", "accuracy")
_PLACE = ("pin", "variant", "model", "pp", "profile", "tp")
# Shown only where a run has several of them.
_OPTIONAL = ("pin", "profile", "tp")


def verdict_table(verdicts: Sequence[VerdictRecord]) -> list[str]:
    """Return the table's lines; an expected verdict carries a star, what did not run a dash."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for one in verdicts:
        cell = one.verdict + ("*" if one.expected and one.verdict != "pass" else "")
        place = tuple(str(getattr(one, name)) for name in _PLACE)
        rows.setdefault(place, {})[one.check] = cell
    shown = [
        index
        for index, name in enumerate(_PLACE)
        if name not in _OPTIONAL or len({place[index] for place in rows}) > 1
    ]
    table = [
        (*(_PLACE[index] for index in shown), *_CHECKS),
        *(
            (*(place[index] for index in shown), *(checks.get(check, "-") for check in _CHECKS))
            for place, checks in rows.items()
        ),
    ]
    return aligned(table)
